/* tests/gpu/test_host_cuda.cu - the emulated card's threads: what kernels do
 * together is done, and what a card would not do is found. */
#include <cuda_runtime.h>

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
}
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    THREADS = 96,
    WARP = 32,
    BLOCKS = 3
};

/* ---- sound ------------------------------------------------------------- */

/* Numbers of a block turned round, and the sum of a warp's that are odd. */
static __global__ void turn_kernel(const int *x, int *y, int *sums)
{
    __shared__ int all[THREADS];
    int i = (int)threadIdx.x, block = (int)(blockIdx.y * gridDim.x + blockIdx.x);
    int v = x[block * THREADS + i], odd = v % 2 ? v : 0;

    all[i] = v;
    for (int k = WARP / 2; k > 0; k /= 2)
        odd += __shfl_xor_sync(0xffffffffu, odd, k);
    if (i % WARP == 0)
        sums[block * THREADS / WARP + i / WARP] = odd;
    __syncthreads();
    y[block * THREADS + i] = all[THREADS - 1 - i];
}

static void test_sound(void **)
{
    static int x[2 * BLOCKS * THREADS], y[2 * BLOCKS * THREADS];
    int sums[2 * BLOCKS * THREADS / WARP];

    for (int i = 0; i < 2 * BLOCKS * THREADS; i++)
        x[i] = i * i % 1009;
    turn_kernel<<<dim3(BLOCKS, 2), THREADS, 0, NULL>>>(x, y, sums);
    for (int i = 0; i < 2 * BLOCKS * THREADS; i++)
        assert_int_equal(y[i],
                         x[i / THREADS * THREADS + THREADS - 1 - i % THREADS]);
    for (int w = 0; w < 2 * BLOCKS * THREADS / WARP; w++) {
        int sum = 0;

        for (int i = 0; i < WARP; i++)
            sum += x[w * WARP + i] % 2 ? x[w * WARP + i] : 0;
        assert_int_equal(sums[w], sum);
    }
}

/* Which lanes have a number below the lane's own. */
static __global__ void vote_kernel(unsigned *votes, uint32_t *n)
{
    unsigned votes_of_all = 0;

    for (unsigned i = 0; i < WARP; i += 8)
        votes_of_all += (unsigned)__popc(
            __ballot_sync(0xffffffffu, threadIdx.x % WARP < i));
    votes[threadIdx.x] = votes_of_all;
    atomicAdd(n, 1);
    atomicMax(n + 1, threadIdx.x);
}

static void test_votes(void **)
{
    unsigned votes[THREADS];
    uint32_t n[2] = {0, 0};

    vote_kernel<<<1, THREADS, 0, NULL>>>(votes, n);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(votes[i], 8 + 16 + 24);
    assert_int_equal(n[0], THREADS);
    assert_int_equal(n[1], THREADS - 1);
}

/* ---- faults ------------------------------------------------------------ */

static __global__ void some_kernel()
{
    if (threadIdx.x < WARP)
        __syncthreads();
}

static __global__ void gone_kernel()
{
    if (threadIdx.x == 5)
        return;
    __syncthreads();
}

static __global__ void two_kernel()
{
    if (threadIdx.x < WARP)
        __syncthreads();
    else
        __syncthreads();
}

static __global__ void lanes_kernel(float *y)
{
    if (threadIdx.x % 2)
        y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 2);
}

static __global__ void idle_kernel()
{
}

static void launch(int i)
{
    static float y[THREADS];

    if (i == 0)
        some_kernel<<<1, THREADS, 0, NULL>>>();
    else if (i == 1)
        gone_kernel<<<1, THREADS, 0, NULL>>>();
    else if (i == 2)
        two_kernel<<<1, THREADS, 0, NULL>>>();
    else if (i == 3)
        lanes_kernel<<<1, THREADS, 0, NULL>>>(y);
    else if (i == 4)
        idle_kernel<<<0, THREADS, 0, NULL>>>();
    else
        idle_kernel<<<1, 1025, 0, NULL>>>();
}

/* What the i-th says before it ends, in a process of its own. */
static void last_words(int i, char *text, size_t size)
{
    int ends[2], status;
    size_t n = 0;
    ssize_t got;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        launch(i);
        _exit(0);
    }
    close(ends[1]);
    while (n < size - 1 && (got = read(ends[0], text + n, size - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
}

static void test_faults(void **)
{
    static const char *const say[][2] = {
        {"some_kernel", "threads have parted"},
        {"gone_kernel", "1 have ended"},
        {"two_kernel", "threads have parted"},
        {"lanes_kernel", "48 at a warp function"},
        {"idle_kernel", "no card takes such a grid"},
        {"idle_kernel", "no card takes such blocks"},
    };

    for (int i = 0; i < 6; i++) {
        char text[2000];

        last_words(i, text, sizeof(text));
        if (!strstr(text, say[i][0]) || !strstr(text, say[i][1]))
            fail_msg("%s said: %s", say[i][0], text);
    }
}

/* ---- races ------------------------------------------------------------- */

/* A neighbour's number, without waiting for it: step -1 or 1. */
static __global__ void race_kernel(float *y, int step)
{
    __shared__ float all[THREADS];
    unsigned i = threadIdx.x;

    all[i] = (float)i;
    y[i] = all[(i + (unsigned)(THREADS + step)) % THREADS];
}

static int n_unwritten(const char *order, int step)
{
    float y[THREADS];
    int n = 0;

    setenv("FACENETD_EMULATED_ORDER", order, 1);
    race_kernel<<<1, THREADS, 0, NULL>>>(y, step);
    unsetenv("FACENETD_EMULATED_ORDER");
    for (int i = 0; i < THREADS; i++)
        n += isnan(y[i]);
    return n;
}

static void test_races(void **)
{
    assert_int_equal(n_unwritten("", 1), THREADS - 1);
    assert_int_equal(n_unwritten("", -1), 1);
    assert_int_equal(n_unwritten("reversed", 1), 1);
    assert_int_equal(n_unwritten("reversed", -1), THREADS - 1);
    assert_in_range(n_unwritten("shuffled", 1), 20, THREADS - 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound), cmocka_unit_test(test_votes),
        cmocka_unit_test(test_faults), cmocka_unit_test(test_races)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
