/* Causal attention of grouped queries over a cache of keys and values that it extends.
 *
 * Queries, keys and values are rows of floats of one token each, heads side by side; a cache has
 * [batch, kv_heads, capacity, head_dim] numbers of float32, float16, int8, or int4 (two codes a byte, the even
 * channel in the low half, stored as code + 8). Values lie like that; keys lie in blocks of 16 tokens, channel by
 * channel: [capacity / 16, head_dim, 16], the last block as wide as what is left. What is appended is rounded to
 * the cache's type and read back.
 *
 * Sums run in one order however many rows are computed at once, so that a prompt gives the bits that its tokens
 * would have given one by one.
 */
#ifndef EDGEPRESS_ATTENTION_H
#define EDGEPRESS_ATTENTION_H

#include <stdint.h>

enum { CACHE_FLOAT32, CACHE_FLOAT16, CACHE_INT8, CACHE_INT4 };

/* Tokens that are weighed together; chunks are joined in their order. */
#define CHUNK 256
/* Weights of so many tokens are summed before these sums are. */
#define KEYS 64
/* Tokens that one task of a prompt takes. */
#define QUERIES 16

typedef struct {
    const float *query, *key, *value;            /* rows of the first token */
    int64_t query_stride, key_stride, value_stride; /* floats from a token to the next */
    void *keys, *values;                         /* the cache */
    const float *key_scale, *value_scale;        /* of codes: [kv_heads, head_dim], or NULL */
    int64_t key_scale_count;                     /* kv_heads · head_dim, or 1 */
    const float *cosines, *sines;                /* [positions, rotated / 2], or NULL */
    int64_t rotated;                             /* channels of a head that are rotated */
    const float *slopes;                         /* [heads]: what each token between two takes from a score, or NULL */
    const float *sinks;                          /* [heads], or NULL */
    const int32_t *last;                         /* [batch]: valid tokens less one */
    float *out;                                  /* [batch, seq, heads · head_dim] */
    int64_t batch, seq, heads, kv_heads, dim, capacity;
    int64_t window; /* tokens that a query sees, itself included; 0: all */
    float scale, softcap;
    int32_t type, interleaved;
    float *rotated_queries; /* scratch [batch, seq, heads · head_dim] */
    float *partial;         /* scratch of single rows: [tasks, group, part_floats(dim)] */
    int64_t chunks;         /* parts of the longest row */
} attention_job;

static inline int64_t row_bytes(int32_t type, int64_t dim) {
    return type == CACHE_FLOAT32 ? dim * 4 : type == CACHE_FLOAT16 ? dim * 2 : type == CACHE_INT8 ? dim : dim / 2;
}
/* What is known of one row after some keys: its largest score, its sum of weights, and from the float 16 on its sums
 * of weighted values. */
static inline int64_t part_floats(int64_t dim) { return 16 + (dim + 15) / 16 * 16; }
static inline int64_t past_of(const attention_job *job, int64_t batch) {
    int64_t past = (int64_t)job->last[batch] + 1 - job->seq;
    return past < 0 ? 0 : past;
}
#endif
