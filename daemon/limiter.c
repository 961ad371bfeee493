/* daemon/limiter.c - a fixed table of failure counts. An address hashes to a
 * set of WAYS slots; the window of a slot begins with its first failure and
 * lasts a minute. A full set gives up the slot that matters least: an expired
 * one, else the one with the fewest failures. The hash is seeded, so that a
 * client cannot choose addresses that push its own out. */
#include "daemon/limiter.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    SETS = 256,
    WAYS = 8,
    ADDRESS_LEN = 16
};

static const int64_t window_us = 60 * INT64_C(1000000);

struct slot {
    uint8_t address[ADDRESS_LEN];
    int64_t start_us;
    int n; /* failures since start; 0: free */
};

struct limiter {
    pthread_mutex_t lock;
    int max;
    uint64_t seed;
    struct slot slots[SETS][WAYS];
};

struct limiter *limiter_new(int max_per_minute)
{
    struct limiter *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->max = max_per_minute;
    /* Without random bytes (a very old kernel) the limiter still works. */
    if (getrandom(&l->seed, sizeof(l->seed), GRND_NONBLOCK) < 0)
        l->seed = (uint64_t)(uintptr_t)l;
    pthread_mutex_init(&l->lock, NULL);
    return l;
}

void limiter_free(struct limiter *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* IPv4 as ::ffff:a.b.c.d, IPv6 as its network, other names by their hash
 * under a prefix that no address on the Internet has. */
static void address_of(const char *addr, uint8_t out[ADDRESS_LEN])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    memset(out, 0, ADDRESS_LEN);
    if (inet_pton(AF_INET, addr, out + sizeof(mapped)) == 1) {
        memcpy(out, mapped, sizeof(mapped));
    } else if (inet_pton(AF_INET6, addr, out) == 1) {
        if (memcmp(out, mapped, sizeof(mapped)) != 0)
            memset(out + 8, 0, 8);
    } else {
        for (; *addr; addr++)
            hash = (hash ^ (uint8_t)*addr) * UINT64_C(0x100000001b3);
        memset(out, 0xff, 8);
        memcpy(out + 8, &hash, sizeof(hash));
    }
}

/* Two rounds of a multiply and shift mixer (as in SplitMix64). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static struct slot *set_of(struct limiter *l,
                           const uint8_t address[ADDRESS_LEN])
{
    uint64_t half[2];

    memcpy(half, address, sizeof(half));
    return l->slots[mix(mix(half[0] ^ l->seed) ^ half[1]) % SETS];
}

static bool expired(const struct slot *s, int64_t now_us)
{
    return s->n == 0 || now_us - s->start_us >= window_us;
}

static struct slot *find(struct slot *set, const uint8_t address[ADDRESS_LEN],
                         int64_t now_us)
{
    for (int i = 0; i < WAYS; i++)
        if (!expired(&set[i], now_us) &&
            memcmp(set[i].address, address, ADDRESS_LEN) == 0)
            return &set[i];
    return NULL;
}

static struct slot *take(struct slot *set, const uint8_t address[ADDRESS_LEN],
                         int64_t now_us)
{
    struct slot *worst = &set[0];

    for (int i = 0; i < WAYS; i++) {
        struct slot *s = &set[i];
        if (expired(s, now_us)) {
            worst = s;
            break;
        }
        if (s->n < worst->n ||
            (s->n == worst->n && s->start_us < worst->start_us))
            worst = s;
    }
    memcpy(worst->address, address, ADDRESS_LEN);
    worst->start_us = now_us;
    worst->n = 0;
    return worst;
}

void limiter_failed(struct limiter *l, const char *addr, int64_t now_us)
{
    uint8_t address[ADDRESS_LEN];
    struct slot *set, *s;

    if (l->max <= 0)
        return;
    address_of(addr, address);
    set = set_of(l, address);
    pthread_mutex_lock(&l->lock);
    s = find(set, address, now_us);
    if (!s)
        s = take(set, address, now_us);
    if (s->n < l->max)
        s->n++;
    pthread_mutex_unlock(&l->lock);
}

int limiter_blocked(struct limiter *l, const char *addr, int64_t now_us)
{
    uint8_t address[ADDRESS_LEN];
    const struct slot *s;
    int wait_s = 0;

    if (l->max <= 0)
        return 0;
    address_of(addr, address);
    pthread_mutex_lock(&l->lock);
    s = find(set_of(l, address), address, now_us);
    if (s && s->n >= l->max)
        wait_s = (int)((s->start_us + window_us - now_us + 999999) / 1000000);
    pthread_mutex_unlock(&l->lock);
    return wait_s;
}
