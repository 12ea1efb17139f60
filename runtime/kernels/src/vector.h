/* Sixteen lanes of 32 bits, by the compiler's vector types, and the few operations that need an instruction
 * of their own on each processor: a fused multiply-add, and the product of four unsigned by four signed bytes
 * in each lane. Every processor gives the same bits: integer sums are exact, and floats are only ever combined
 * by single operations and fused multiply-adds in a fixed order.
 */
#ifndef EDGEPRESS_VECTOR_H
#define EDGEPRESS_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights and caches are little-endian, and so must the processor be"
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))
/* With 32 registers, loops over rows and heads keep their sums in registers when they are unrolled. */
#if defined(EDGEPRESS_AVX512)
#define UNROLL _Pragma("GCC unroll 8")
#define MOST_ROWS 8
#define EXACT_ROWS 8
#else
#define UNROLL
#define MOST_ROWS 4
#define EXACT_ROWS 4
#endif
/* Vectors of outputs that products take at once: of one tile or more. A single row in float takes EXACT_COLUMNS, so
 * that no sum waits for its last addition. */
#if defined(EDGEPRESS_NEON)
#define MOST_COLUMNS 4
#define EXACT_COLUMNS 4
#elif defined(EDGEPRESS_AVX512) || defined(EDGEPRESS_AVX2)
#define MOST_COLUMNS 2
#define EXACT_COLUMNS 4
#else
#define MOST_COLUMNS 1
#define EXACT_COLUMNS 1
#endif
#define OUTLINED __attribute__((noinline))
/* Asks for a line that one row reads soon, into the second-level cache: a core waits for twice as many lines there as in
 * the first level, whose places the loads themselves need (a Zen 4 takes a sixth longer to decode a token otherwise). */
#define PREFETCH(address) __builtin_prefetch(address, 0, 2)
#define TILE_UNROLL _Pragma("GCC unroll 16")
/* Code that is made once for each constant it is called with: worth its size where there are instructions of its
 * own, and not in the reference. */
#if defined(EDGEPRESS_AVX512) || defined(EDGEPRESS_AVX2) || defined(EDGEPRESS_NEON)
#define SPECIALIZED INLINE
#elif defined(__clang__)
#define SPECIALIZED static __attribute__((noinline))
#else
#define SPECIALIZED static __attribute__((noinline, noclone))
#endif

typedef int32_t ints __attribute__((vector_size(64), may_alias));
typedef uint32_t words __attribute__((vector_size(64), may_alias));
typedef float floats __attribute__((vector_size(64), may_alias));
typedef int8_t bytes __attribute__((vector_size(16)));
typedef uint8_t unsigned_bytes __attribute__((vector_size(16)));
typedef int16_t shorts __attribute__((vector_size(32)));

#if defined(EDGEPRESS_AVX512)
INLINE floats fused(floats a, floats b, floats c) {
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
INLINE ints dot4(ints sum, words codes, int32_t quad) {
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, _mm512_set1_epi32(quad));
}
/* Two products of 16 bits in each lane. */
INLINE ints dot2(ints sum, words codes, int32_t pair) {
    return (ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)codes, _mm512_set1_epi32(pair));
}
INLINE floats nearest(floats value) {
    return (floats)_mm512_roundscale_ps((__m512)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE floats absolute(floats value) { return (floats)_mm512_abs_ps((__m512)value); }
INLINE floats maximum(floats a, floats b) { return (floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE floats minimum(floats a, floats b) { return (floats)_mm512_min_ps((__m512)a, (__m512)b); }

#elif defined(EDGEPRESS_AVX2)
typedef int32_t half_ints __attribute__((vector_size(32)));
typedef union { floats whole; __m256 half[2]; } float_halves;
typedef union { ints whole; __m256i half[2]; } int_halves;
INLINE floats fused(floats a, floats b, floats c) {
    float_halves x = {a}, y = {b}, z = {c};
    z.half[0] = _mm256_fmadd_ps(x.half[0], y.half[0], z.half[0]);
    z.half[1] = _mm256_fmadd_ps(x.half[1], y.half[1], z.half[1]);
    return z.whole;
}
INLINE __m256i dot4_half(__m256i sum, __m256i codes, __m256i quad) {
#if defined(EDGEPRESS_AVXVNNI)
    return _mm256_dpbusd_avx_epi32(sum, codes, quad);
#else
    /* Pairs of products of 8-bit codes do not fit 16 bits: even and odd bytes are widened first. */
    const __m256i low = _mm256_set1_epi16(0x00ff);
    __m256i even = _mm256_and_si256(codes, low), odd = _mm256_srli_epi16(codes, 8);
    __m256i even_quad = _mm256_srai_epi16(_mm256_slli_epi16(quad, 8), 8), odd_quad = _mm256_srai_epi16(quad, 8);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even, even_quad));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(odd, odd_quad));
#endif
}
INLINE ints dot4(ints sum, words codes, int32_t quad) {
    int_halves total = {sum}, parts = {(ints)codes};
    __m256i all = _mm256_set1_epi32(quad);
    total.half[0] = dot4_half(total.half[0], parts.half[0], all);
    total.half[1] = dot4_half(total.half[1], parts.half[1], all);
    return total.whole;
}
INLINE ints dot2(ints sum, words codes, int32_t pair) {
    int_halves total = {sum}, parts = {(ints)codes};
    __m256i all = _mm256_set1_epi32(pair);
    for (int i = 0; i < 2; i++) {
#if defined(EDGEPRESS_AVXVNNI)
        total.half[i] = _mm256_dpwssd_avx_epi32(total.half[i], parts.half[i], all);
#else
        total.half[i] = _mm256_add_epi32(total.half[i], _mm256_madd_epi16(parts.half[i], all));
#endif
    }
    return total.whole;
}
INLINE floats nearest(floats value) {
    float_halves x = {value};
    x.half[0] = _mm256_round_ps(x.half[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    x.half[1] = _mm256_round_ps(x.half[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return x.whole;
}

#elif defined(EDGEPRESS_NEON)
#include "vector_neon.h"

#else
INLINE floats fused(floats a, floats b, floats c) {
    for (int lane = 0; lane < LANES; lane++) c[lane] = fmaf(a[lane], b[lane], c[lane]);
    return c;
}
INLINE ints dot4(ints sum, words codes, int32_t quad) {
    int8_t factors[4];
    memcpy(factors, &quad, 4);
    for (int lane = 0; lane < LANES; lane++)
        for (int byte = 0; byte < 4; byte++)
            sum[lane] += (int32_t)(codes[lane] >> (8 * byte) & 255) * factors[byte];
    return sum;
}
INLINE ints dot2(ints sum, words codes, int32_t pair) {
    for (int lane = 0; lane < LANES; lane++)
        sum[lane] += (int16_t)codes[lane] * (int16_t)pair + (int16_t)(codes[lane] >> 16) * (int16_t)(pair >> 16);
    return sum;
}
INLINE floats nearest(floats value) {
    for (int lane = 0; lane < LANES; lane++) value[lane] = rintf(value[lane]);
    return value;
}
#endif

#if !defined(EDGEPRESS_AVX512)
INLINE floats absolute(floats value) { return (floats)((words)value & 0x7fffffffu); }
INLINE floats maximum(floats a, floats b) {
    ints first = a > b;
    return (floats)((first & (ints)a) | (~first & (ints)b));
}
INLINE floats minimum(floats a, floats b) {
    ints first = a < b;
    return (floats)((first & (ints)a) | (~first & (ints)b));
}
#endif

/* Lanes of a tile that fit one register: where that is half of them, products take a tile in two parts. */
#if defined(EDGEPRESS_AVX2)
#define TILE_LANES 8
typedef int32_t tile_ints __attribute__((vector_size(32), may_alias));
typedef uint32_t tile_words __attribute__((vector_size(32), may_alias));
typedef float tile_floats __attribute__((vector_size(32), may_alias));
INLINE tile_floats tile_fused(tile_floats a, tile_floats b, tile_floats c) {
    return (tile_floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
/* `small`: codes below 16, of which two products fit 16 bits. */
INLINE tile_ints tile_dot4(tile_ints sum, tile_words codes, int32_t quad, const int small) {
    __m256i factors = _mm256_set1_epi32(quad);
#if !defined(EDGEPRESS_AVXVNNI)
    if (small) {
        __m256i pairs = _mm256_maddubs_epi16((__m256i)codes, factors);
        return (tile_ints)_mm256_add_epi32((__m256i)sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
#endif
    (void)small;
    return (tile_ints)dot4_half((__m256i)sum, (__m256i)codes, factors);
}
INLINE tile_floats tile_nearest(tile_floats value) {
    return (tile_floats)_mm256_round_ps((__m256)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE tile_floats tile_maximum(tile_floats a, tile_floats b) { return (tile_floats)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE tile_floats tile_minimum(tile_floats a, tile_floats b) { return (tile_floats)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE void tile_store_bytes(int8_t *into, tile_ints value) {
    __m128i low = _mm256_castsi256_si128((__m256i)value), high = _mm256_extracti128_si256((__m256i)value, 1);
    __m128i pairs = _mm_packs_epi32(low, high);
    _mm_storel_epi64((void *)into, _mm_packs_epi16(pairs, pairs));
}
#elif !defined(EDGEPRESS_NEON)
#define TILE_LANES LANES
typedef ints tile_ints;
typedef words tile_words;
typedef floats tile_floats;
#define tile_fused fused
#define tile_dot4(sum, codes, quad, small) ((void)(small), dot4(sum, codes, quad))
#define tile_nearest nearest
#define tile_maximum maximum
#define tile_minimum minimum
INLINE void tile_store_bytes(int8_t *into, tile_ints value) {
#if defined(EDGEPRESS_AVX512)
    _mm_storeu_si128((void *)into, _mm512_cvtepi32_epi8((__m512i)value));
#else
    for (int lane = 0; lane < LANES; lane++) into[lane] = (int8_t)value[lane];
#endif
}
#endif
typedef uint8_t tile_octets __attribute__((vector_size(TILE_LANES), may_alias));
INLINE tile_words tile_load(const void *from) {
    tile_words value;
    memcpy(&value, from, sizeof value);
    return value;
}
INLINE tile_floats tile_all(float value) { return value - (tile_floats){0}; }
INLINE tile_floats tile_absolute(tile_floats value) { return (tile_floats)((tile_words)value & 0x7fffffffu); }
INLINE tile_ints tile_to_ints(tile_floats value) { return __builtin_convertvector(value, tile_ints); }
INLINE tile_floats tile_to_floats(tile_ints value) { return __builtin_convertvector(value, tile_floats); }
INLINE tile_floats tile_load_some(const float *from, int64_t count) {
    tile_floats value = {0};
    if (count >= TILE_LANES) return (tile_floats)tile_load(from);
    memcpy(&value, from, (size_t)count * 4);
    return value;
}
INLINE void tile_store_some(float *into, tile_floats value, int64_t count) {
    if (count >= TILE_LANES) memcpy(into, &value, sizeof value);
    else memcpy(into, &value, (size_t)count * 4);
}

INLINE floats load_floats(const float *from) {
    floats value;
    memcpy(&value, from, sizeof value);
    return value;
}
INLINE words load_words(const void *from) {
    words value;
    memcpy(&value, from, sizeof value);
    return value;
}
INLINE void store_floats(float *into, floats value) { memcpy(into, &value, sizeof value); }
INLINE floats all(float value) { return value - (floats){0}; }
INLINE floats to_floats(ints value) { return __builtin_convertvector(value, floats); }
INLINE ints to_ints(floats value) { return __builtin_convertvector(value, ints); }

/* The first `count` floats, zeros behind them. */
INLINE floats load_some(const float *from, int64_t count) {
    floats value = {0};
    if (count >= LANES) return load_floats(from);
    memcpy(&value, from, (size_t)count * 4);
    return value;
}
INLINE void store_some(float *into, floats value, int64_t count) {
    if (count >= LANES) store_floats(into, value);
    else memcpy(into, &value, (size_t)count * 4);
}

/* Sixteen rows of sixteen lanes, turned: blocks of `step` lanes change places, from the largest to single ones. */
#if defined(EDGEPRESS_AVX512) && !defined(__clang__)
INLINE void transpose_step(ints *rows, const int step) {
    const ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    ints upper = (lane & step) != 0, first = lane + (upper & (LANES - step)), second = first + step;
    TILE_UNROLL for (int pair = 0; pair < LANES / 2; pair++) {
        int i = pair / step * 2 * step + pair % step;
        ints a = rows[i], b = rows[i + step];
        rows[i] = __builtin_shuffle(a, b, first);
        rows[i + step] = __builtin_shuffle(a, b, second);
    }
}
INLINE void transpose(ints *rows) {
    transpose_step(rows, 8);
    transpose_step(rows, 4);
    transpose_step(rows, 2);
    transpose_step(rows, 1);
}
#else
INLINE void transpose(ints *rows) {
    int32_t turned[LANES][LANES];
    for (int row = 0; row < LANES; row++)
        for (int i = 0; i < LANES; i++) turned[i][row] = rows[row][i];
    memcpy(rows, turned, sizeof turned);
}
#endif
#endif
