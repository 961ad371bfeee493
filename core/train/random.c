/* core/train/random.c - splitmix64 (Steele, Lea, Flood, 2014). */
#include "core/train/random.h"

uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int random_below(uint64_t *state, int n)
{
    uint64_t most = UINT64_MAX - UINT64_MAX % (uint64_t)n, x;

    do
        x = random_next(state);
    while (x >= most); /* so that every rest is as likely */
    return (int)(x % (uint64_t)n);
}

double random_unit(uint64_t *state)
{
    return (double)(random_next(state) >> 11) * 0x1p-53;
}

void random_shuffle(uint64_t *state, int *x, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int k = random_below(state, i + 1), t = x[i];

        x[i] = x[k];
        x[k] = t;
    }
}
