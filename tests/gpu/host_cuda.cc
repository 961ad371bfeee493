/* tests/gpu/host_cuda.cc - see the header: blocks one by one, the threads of
 * each as fibers. A pass runs every thread that can run; then none can, and
 * either warps or the block have come to the same place, or it is a fault. A
 * fiber goes on with the next thread where one ended without having waited, so
 * that kernels without barriers are plain loops. Launches take turns. */
#include "tests/gpu/host_cuda.h"

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace
{
enum {
    WARP = 32,
    MAX_THREADS = 1024, /* of a block */
    MAX_SHARED = 48 << 10,
    MAX_ARRAYS = 16,
    STACK = 256 << 10
};

enum state {
    FRESH,
    READY,
    AT_BARRIER,
    AT_WARP,
    ENDED
};

struct fiber {
    ucontext_t context;
    jmp_buf place; /* where it goes on, once it has begun */
    bool begun;
    void *stack;
    size_t size;
    void *shadow; /* of AddressSanitizer */
};

struct thread {
    dim3 place;
    enum state state;
    int line; /* of what it waits at */
    host_combine_fn combine;
    void *mine;
    struct fiber *fiber;
};

/* The launch that runs. */
pthread_mutex_t turn = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
const char *kernel;
void (*body)(void *at);
void *body_at;
struct thread threads[MAX_THREADS];
unsigned n_threads, order[MAX_THREADS];
unsigned at_order; /* of the pass: whose turn it is */
bool reversed, shuffled;
uint64_t random_state;

ucontext_t here; /* what fibers are made from */
struct fiber scheduler, fibers[MAX_THREADS];
struct fiber *idle[MAX_THREADS];
unsigned n_idle, n_made;

struct {
    void *p[MAX_ARRAYS];
    unsigned n;
    size_t bytes;
} arrays; /* shared memory that the block has used */

/* ---- fibers ------------------------------------------------------------ */

void begin_fiber(void);

#ifdef __SANITIZE_ADDRESS__
struct fiber *left; /* whose stack was left last */

/* On a stack again, or for the first time. The scheduler's is that of whatever
 * thread launches. */
void arrive(void *shadow)
{
    const void *bottom;
    size_t size;

    __sanitizer_finish_switch_fiber(shadow, &bottom, &size);
    if (left != &scheduler)
        return;
    scheduler.stack = (void *)bottom;
    scheduler.size = size;
}

void change(struct fiber *from, struct fiber *to)
{
    left = from;
    __sanitizer_start_switch_fiber(&from->shadow, to->stack, to->size);
    swapcontext(&from->context, &to->context);
    arrive(from->shadow);
}
#else
void arrive(void *)
{
}

/* swapcontext asks the system each time; this does so only at first. */
__attribute__((noinline)) void change(struct fiber *from, struct fiber *to)
{
    if (_setjmp(from->place))
        return;
    if (to->begun)
        _longjmp(to->place, 1);
    to->begun = true;
    setcontext(&to->context);
}
#endif

struct fiber *take_fiber(void)
{
    struct fiber *f = n_idle ? idle[--n_idle] : &fibers[n_made];

    if (f != &fibers[n_made])
        return f;
    n_made++;
    f->size = STACK;
    f->stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f->stack == MAP_FAILED)
        host_fault("no memory for a thread's stack");
    f->context = here;
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = f->size;
    f->context.uc_link = NULL;
    makecontext(&f->context, begin_fiber, 0);
    return f;
}

__attribute__((destructor)) void drop_fibers(void)
{
    while (n_made)
        munmap(fibers[--n_made].stack, STACK);
}

/* ---- a block ----------------------------------------------------------- */

void choose(unsigned t)
{
    threadIdx = threads[t].place;
}

struct thread *current(void)
{
    return &threads[order[at_order]];
}

/* The fiber of the next thread of the pass that can run; the scheduler after
 * the last. done: one that is free to take a fresh thread; NULL: none. */
struct fiber *next(struct fiber *done)
{
    struct thread *t = NULL;

    while (++at_order < n_threads) {
        t = current();
        if (t->state == FRESH || t->state == READY)
            break;
    }
    if (at_order < n_threads && t->state == FRESH) {
        t->fiber = done ? done : take_fiber();
        t->state = READY;
    } else if (done) {
        idle[n_idle++] = done;
    }
    if (at_order == n_threads)
        return &scheduler;
    choose(order[at_order]);
    return t->fiber;
}

/* What every fiber does: threads from their beginning to their end. */
void begin_fiber(void)
{
    struct fiber *own = current()->fiber, *to;

    arrive(NULL);
    for (;;) {
        body(body_at);
        current()->state = ENDED;
        to = next(own);
        if (to != own)
            change(own, to);
    }
}

/* The current thread, until all that it waits for are there. */
void wait(enum state state, int line)
{
    struct thread *t = current();

    t->state = state;
    t->line = line;
    change(t->fiber, next(NULL));
}

unsigned draw(unsigned below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((random_state >> 33) % below);
}

void put_in_order(void)
{
    for (unsigned i = 0; i < n_threads; i++)
        order[i] = reversed ? n_threads - 1 - i : i;
    for (unsigned i = n_threads; shuffled && i > 1; i--) {
        unsigned with = draw(i), other = order[with];
        order[with] = order[i - 1];
        order[i - 1] = other;
    }
}

/* Every thread that can run, until it waits. */
void pass(void)
{
    if (shuffled)
        put_in_order();
    at_order = UINT_MAX; /* before the first */
    change(&scheduler, next(NULL));
}

/* Do all lanes from `first` on wait at the same warp function? */
bool complete(unsigned first)
{
    unsigned n = 0;

    for (unsigned i = first; i < first + WARP && i < n_threads; i++)
        n += threads[i].state == AT_WARP &&
             threads[i].line == threads[first].line;
    return n == WARP;
}

/* Lets a warp go on that is complete. */
void combine(unsigned first)
{
    void *lanes[WARP];

    for (unsigned i = 0; i < WARP; i++) {
        lanes[i] = threads[first + i].mine;
        threads[first + i].state = READY;
    }
    choose(first);
    threads[first].combine(lanes);
}

/* Complete warps: all of them, step by step; where reversed, the last alone, as
 * far as it goes; where shuffled, some. */
bool warps(void)
{
    unsigned complete_ones[MAX_THREADS / WARP], n = 0, least;

    for (unsigned first = 0; first < n_threads; first += WARP)
        if (complete(first))
            complete_ones[n++] = first;
    if (n == 0)
        return false;
    least = shuffled ? draw(n) : n - 1;
    for (unsigned i = 0; i < n; i++)
        if (i == least || (shuffled ? draw(2) == 0 : !reversed))
            combine(complete_ones[i]);
    return true;
}

/* Nothing runs, no warp can: all have ended, or are at one barrier. */
bool barrier(void)
{
    unsigned n_ended = 0, n_barrier = 0, n_warp = 0;
    int lines[2] = {0, 0};
    char what[200];

    for (unsigned i = 0; i < n_threads; i++) {
        n_ended += threads[i].state == ENDED;
        n_barrier += threads[i].state == AT_BARRIER;
        n_warp += threads[i].state == AT_WARP;
        if (threads[i].state == ENDED)
            continue;
        lines[0] = lines[0] ? lines[0] : threads[i].line;
        lines[1] = threads[i].line != lines[0] ? threads[i].line : lines[1];
    }
    if (n_ended == n_threads)
        return false;
    if (n_barrier < n_threads || lines[1]) {
        snprintf(what, sizeof(what),
                 "threads have parted: %u wait at a barrier, %u at a warp "
                 "function (line %d%s%.0d), %u have ended",
                 n_barrier, n_warp, lines[0], lines[1] ? ", " : "", lines[1],
                 n_ended);
        host_fault(what);
    }
    for (unsigned i = 0; i < n_threads; i++)
        threads[i].state = READY;
    return true;
}

void run_block(void)
{
    arrays.n = 0;
    arrays.bytes = 0;
    for (unsigned i = 0; i < n_threads; i++)
        threads[i].state = FRESH;
    put_in_order();
    do
        pass();
    while (warps() || barrier());
}
} // namespace

/* ---- what the header promises ------------------------------------------ */

void host_fault(const char *what)
{
    fprintf(stderr, "kernel %s, block %u,%u,%u, thread %u,%u,%u: %s\n", kernel,
            blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y,
            threadIdx.z, what);
    abort();
}

void host_run(const char *name, const host_grid *g, void (*f)(void *at),
              void *at)
{
    const char *how = getenv("FACENETD_EMULATED_ORDER");
    const dim3 *n = &g->grid, *b = &g->block;
    uint64_t blocks = (uint64_t)n->x * n->y * n->z;

    if (pthread_mutex_lock(&turn)) /* a test was left by a jump */
        host_fault("the launch before did not end");
    kernel = name;
    body = f;
    body_at = at;
    gridDim = *n;
    blockDim = *b;
    random_state = blocks;
    scheduler.begun = true;
    getcontext(&here);
    n_threads = b->x * b->y * b->z;
    how = how && *how ? how : NULL;
    for (unsigned t = 0; t < n_threads && n_threads <= MAX_THREADS; t++)
        threads[t].place = dim3(t % b->x, t / b->x % b->y, t / b->x / b->y);
    reversed = how && !strcmp(how, "reversed");
    shuffled = how && !strcmp(how, "shuffled");
    if (how && !reversed && !shuffled)
        host_fault("FACENETD_EMULATED_ORDER is reversed or shuffled");
    if (!blocks || n->x > INT32_MAX || n->y > 65535 || n->z > 65535)
        host_fault("no card takes such a grid");
    if (!n_threads || n_threads > MAX_THREADS || b->z > 64 || g->shared)
        host_fault("no card takes such blocks");
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t k = reversed ? blocks - 1 - i : i;

        /* 2654435761 is a prime: each comes once unless it divides them. */
        if (shuffled && blocks % 2654435761u)
            k = (uint64_t)((unsigned __int128)i * 2654435761u % blocks);
        blockIdx.x = (unsigned)(k % n->x);
        blockIdx.y = (unsigned)(k / n->x % n->y);
        blockIdx.z = (unsigned)(k / n->x / n->y);
        run_block();
    }
    pthread_mutex_unlock(&turn);
}

void host_shared(void *p, size_t bytes)
{
    for (unsigned i = 0; i < arrays.n; i++)
        if (arrays.p[i] == p)
            return;
    arrays.bytes += bytes;
    if (arrays.n == MAX_ARRAYS || arrays.bytes > MAX_SHARED)
        host_fault("more shared memory than a card has");
    arrays.p[arrays.n++] = p;
    memset(p, 0xff, bytes);
}

void __syncthreads(int line)
{
    wait(AT_BARRIER, line);
}

void host_warp(host_combine_fn combine, void *mine, int line)
{
    struct thread *t = current();

    t->combine = combine;
    t->mine = mine;
    wait(AT_WARP, line);
}

namespace
{
struct vote {
    bool in;
    unsigned out;
};

void count_votes(void *const lanes[32])
{
    unsigned all = 0;

    for (int i = 0; i < 32; i++)
        all |= (unsigned)((struct vote *)lanes[i])->in << i;
    for (int i = 0; i < 32; i++)
        ((struct vote *)lanes[i])->out = all;
}
} // namespace

unsigned __ballot_sync(unsigned mask, int vote, int line)
{
    struct vote mine = {vote != 0, 0};

    if (mask != 0xffffffffu)
        host_fault("a vote of some lanes only");
    host_warp(count_votes, &mine, line);
    return mine.out;
}

/* ---- the runtime ------------------------------------------------------- */

cudaError_t cudaMemsetAsync(void *p, int byte, size_t n, cudaStream_t)
{
    memset(p, byte, n);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t)
{
    const char *how = getenv("FACENETD_EMULATED_SEARCH");

    return how && !strcmp(how, "hang") ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}
