/* gpu/card.c - see the header; the CUDA runtime. The runtime's errors that
 * leave a context useless stick to the card: device_open in a process whose
 * card was lost starts from a context of its own once nobody uses the old. */
#include "gpu/card.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LEAST_LEVEL = 75,   /* what kernels are compiled for */
    LEAST_CUDA = 13000, /* of the driver: that of the toolkit's major */
    MAX_CARDS = 64
};

struct card {
    int index;
    struct cudaDeviceProp prop;
    int driver;
    size_t bound;
    atomic_size_t used;
    atomic_bool lost;
};

struct stream {
    struct card *card;
    cudaStream_t handle;
    cudaEvent_t done, begin, end;
    cudaGraphExec_t run;
};

/* Of each card of the machine, how many are open. */
static atomic_int n_open[MAX_CARDS];

/* Errors of one call, after which the next may succeed; all others leave the
 * context useless. */
static bool of_the_call(cudaError_t e)
{
    static const cudaError_t list[] = {
        cudaErrorInvalidValue,           cudaErrorMemoryAllocation,
        cudaErrorInvalidConfiguration,   cudaErrorInvalidDeviceFunction,
        cudaErrorNoKernelImageForDevice, cudaErrorInvalidResourceHandle,
        cudaErrorLaunchOutOfResources,   cudaErrorNotPermitted,
        cudaErrorNotSupported,
    };

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if (e == list[i])
            return true;
    return e >= cudaErrorStreamCaptureUnsupported &&
           e <= cudaErrorStreamCaptureWrongThread;
}

static int failed(struct card *c, cudaError_t e, const char *what,
                  struct error *err)
{
    cudaGetLastError(); /* the next call's is its own */
    if (e == cudaErrorMemoryAllocation)
        return error_set(err, ERR_NOMEM, "card %d: no memory for %s", c->index,
                         what);
    if (!of_the_call(e))
        atomic_store(&c->lost, true);
    return error_set(err, ERR_DEVICE, "card %d: %s: %s", c->index, what,
                     cudaGetErrorString(e));
}

static int lost(struct card *c, struct error *err)
{
    return error_set(err, ERR_DEVICE, "card %d was lost", c->index);
}

static int choose_card(int index, struct cudaDeviceProp *prop, int *driver,
                       struct error *err)
{
    int n = 0;
    cudaError_t e = cudaDriverGetVersion(driver);

    if (e == cudaSuccess && *driver == 0)
        return error_set(err, ERR_DEVICE, "there is no NVIDIA driver");
    if (e == cudaSuccess && *driver < LEAST_CUDA)
        return error_set(
            err, ERR_DEVICE, "the driver knows CUDA %d.%d, %d.0 is needed",
            *driver / 1000, *driver % 1000 / 10, LEAST_CUDA / 1000);
    if (e == cudaSuccess)
        e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess)
        return error_set(err, ERR_DEVICE, "no card: %s", cudaGetErrorString(e));
    if (index < 0 || index >= n || index >= MAX_CARDS)
        return error_set(err, ERR_DEVICE, "no card %d: there are %d", index, n);
    e = cudaGetDeviceProperties(prop, index);
    if (e != cudaSuccess)
        return error_set(err, ERR_DEVICE, "card %d: %s", index,
                         cudaGetErrorString(e));
    if (prop->major * 10 + prop->minor < LEAST_LEVEL)
        return error_set(err, ERR_DEVICE,
                         "card %d, %.60s, is of level %d.%d; %d.%d is needed",
                         index, prop->name, prop->major, prop->minor,
                         LEAST_LEVEL / 10, LEAST_LEVEL % 10);
    return 0;
}

struct card *card_open(const struct device_options *opt, struct error *err)
{
    struct card *c = calloc(1, sizeof(*c));
    cudaError_t e;

    if (!c)
        return error_null(err, ERR_NOMEM, "no memory for a card");
    c->index = opt->index;
    c->bound = opt->memory_bytes;
    if (choose_card(opt->index, &c->prop, &c->driver, err)) {
        free(c);
        return NULL;
    }
    atomic_fetch_add(&n_open[c->index], 1);
    e = cudaSetDevice(c->index);
    if (e == cudaSuccess)
        e = cudaFree(NULL); /* a context that cannot work says so here */
    if (e == cudaSuccess)
        return c;
    error_set(err, ERR_DEVICE, "card %d, %.60s: %s", c->index, c->prop.name,
              cudaGetErrorString(e));
    atomic_store(&c->lost, true);
    card_close(c);
    return NULL;
}

void card_close(struct card *c)
{
    bool last;

    if (!c)
        return;
    last = atomic_fetch_sub(&n_open[c->index], 1) == 1;
    if (last && atomic_load(&c->lost) && cudaSetDevice(c->index) == cudaSuccess)
        cudaDeviceReset();
    cudaGetLastError();
    free(c);
}

int card_level(const struct card *c)
{
    return c->prop.major * 10 + c->prop.minor;
}

void card_identity(const struct card *c, char *buf, size_t len)
{
    snprintf(buf, len, "%s, sm_%d, %d processors, %zu MiB, driver %d",
             c->prop.name, card_level(c), c->prop.multiProcessorCount,
             c->prop.totalGlobalMem >> 20, c->driver);
}

int card_enter(struct card *c, struct error *err)
{
    cudaError_t e;

    if (atomic_load(&c->lost))
        return lost(c, err);
    e = cudaSetDevice(c->index);
    return e == cudaSuccess ? 0 : failed(c, e, "choosing it", err);
}

void card_describe(const struct card *c, struct device_info *out)
{
    size_t free_now, total;

    snprintf(out->name, sizeof(out->name), "%.63s", c->prop.name);
    snprintf(out->isa, sizeof(out->isa), "sm_%d%d, CUDA %d.%d", c->prop.major,
             c->prop.minor, c->driver / 1000, c->driver % 1000 / 10);
    out->bytes_used = atomic_load(&((struct card *)c)->used);
    out->bytes_total = c->prop.totalGlobalMem;
    /* What all on the card have taken, the libraries' own too. */
    if (!card_enter((struct card *)c, NULL) &&
        cudaMemGetInfo(&free_now, &total) == cudaSuccess)
        out->bytes_used = total - free_now;
}

void *card_alloc(struct card *c, size_t bytes, struct error *err)
{
    size_t used = atomic_fetch_add(&c->used, bytes) + bytes;
    void *p = NULL;
    cudaError_t e;

    if (c->bound && used > c->bound) {
        error_set(err, ERR_NOMEM,
                  "card %d: %zu MiB more would be over the %zu MiB allowed",
                  c->index, (bytes >> 20) + 1, c->bound >> 20);
    } else {
        e = cudaMalloc(&p, bytes ? bytes : 1);
        if (e == cudaSuccess)
            return p;
        failed(c, e, "what was asked", err);
    }
    atomic_fetch_sub(&c->used, bytes);
    return NULL;
}

void card_release(struct card *c, void *p, size_t bytes)
{
    if (!p)
        return;
    cudaFree(p); /* fails on a lost card, whose memory is gone anyway */
    atomic_fetch_sub(&c->used, bytes);
}

int card_upload(struct card *c, void *to, const void *from, size_t bytes,
                struct error *err)
{
    cudaError_t e = cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice);

    /* It may return when the bytes are on their way, and streams of ours do
     * not wait for the runtime's own. */
    if (e == cudaSuccess)
        e = cudaStreamSynchronize(cudaStreamLegacy);
    return e == cudaSuccess ? 0 : failed(c, e, "copying to it", err);
}

int card_fill(struct card *c, void *to, int byte, size_t bytes,
              struct error *err)
{
    cudaError_t e = cudaMemset(to, byte, bytes);

    if (e == cudaSuccess)
        e = cudaDeviceSynchronize();
    return e == cudaSuccess ? 0 : failed(c, e, "filling memory", err);
}

void *card_pin(struct card *c, size_t bytes, struct error *err)
{
    void *p = NULL;
    cudaError_t e = cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocDefault);

    if (e == cudaSuccess)
        return p;
    failed(c, e, "pinned memory", err);
    return NULL;
}

void card_unpin(struct card *c, void *p)
{
    (void)c;
    if (p)
        cudaFreeHost(p);
}

struct stream *card_stream_new(struct card *c, struct error *err)
{
    struct stream *s = calloc(1, sizeof(*s));
    cudaError_t e;

    if (!s)
        return error_null(err, ERR_NOMEM, "no memory for a stream");
    s->card = c;
    e = cudaStreamCreateWithFlags(&s->handle, cudaStreamNonBlocking);
    if (e == cudaSuccess)
        e = cudaEventCreateWithFlags(&s->done, cudaEventBlockingSync |
                                                   cudaEventDisableTiming);
    if (e == cudaSuccess)
        e = cudaEventCreate(&s->begin);
    if (e == cudaSuccess)
        e = cudaEventCreate(&s->end);
    if (e == cudaSuccess)
        return s;
    failed(c, e, "a stream", err);
    card_stream_free(s);
    return NULL;
}

void card_stream_free(struct stream *s)
{
    if (!s)
        return;
    if (s->run)
        cudaGraphExecDestroy(s->run);
    if (s->done)
        cudaEventDestroy(s->done);
    if (s->begin)
        cudaEventDestroy(s->begin);
    if (s->end)
        cudaEventDestroy(s->end);
    if (s->handle)
        cudaStreamDestroy(s->handle);
    free(s);
}

void *card_stream_handle(struct stream *s)
{
    return s->handle;
}

int card_copy_in(struct stream *s, void *to, const void *from, size_t bytes,
                 struct error *err)
{
    cudaError_t e =
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, s->handle);

    return e == cudaSuccess ? 0 : failed(s->card, e, "copying to it", err);
}

int card_copy_out(struct stream *s, void *to, const void *from, size_t bytes,
                  struct error *err)
{
    cudaError_t e =
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, s->handle);

    return e == cudaSuccess ? 0 : failed(s->card, e, "copying from it", err);
}

int card_launched(struct stream *s, const char *kernel, struct error *err)
{
    cudaError_t e = cudaGetLastError();

    return e == cudaSuccess ? 0 : failed(s->card, e, kernel, err);
}

/* Sleeps: a core that only waits would be missing for decoding. */
int card_wait(struct stream *s, struct error *err)
{
    cudaError_t e = cudaEventRecord(s->done, s->handle);

    if (e == cudaSuccess)
        e = cudaEventSynchronize(s->done);
    return e == cudaSuccess ? 0 : failed(s->card, e, "running", err);
}

bool card_record(struct stream *s)
{
    return cudaStreamBeginCapture(
               s->handle, cudaStreamCaptureModeThreadLocal) == cudaSuccess;
}

bool card_recorded(struct stream *s)
{
    cudaGraph_t graph = NULL;
    cudaError_t e = cudaStreamEndCapture(s->handle, &graph);

    if (s->run) /* what was recorded before */
        cudaGraphExecDestroy(s->run);
    s->run = NULL;
    if (e == cudaSuccess)
        e = cudaGraphInstantiate(&s->run, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    if (e == cudaSuccess)
        e = cudaGraphUpload(s->run, s->handle);
    if (e == cudaSuccess)
        return true;
    cudaGetLastError(); /* what a broken recording leaves behind */
    if (s->run)
        cudaGraphExecDestroy(s->run);
    s->run = NULL;
    return false;
}

int card_replay(struct stream *s, struct error *err)
{
    cudaError_t e;

    if (atomic_load(&s->card->lost))
        return lost(s->card, err);
    e = cudaGraphLaunch(s->run, s->handle);
    return e == cudaSuccess ? 0 : failed(s->card, e, "starting a run", err);
}

int card_time(struct stream *s, int (*work)(void *at, struct error *err),
              void *at, int n, float *us, struct error *err)
{
    float ms = 0;
    cudaError_t e = cudaEventRecord(s->begin, s->handle);

    for (int i = 0; e == cudaSuccess && i < n; i++)
        if (work(at, err))
            return -1;
    if (e == cudaSuccess)
        e = cudaEventRecord(s->end, s->handle);
    if (e == cudaSuccess)
        e = cudaEventSynchronize(s->end);
    if (e == cudaSuccess)
        e = cudaEventElapsedTime(&ms, s->begin, s->end);
    *us = 1000 * ms / (float)n;
    return e == cudaSuccess ? 0 : failed(s->card, e, "timing", err);
}
