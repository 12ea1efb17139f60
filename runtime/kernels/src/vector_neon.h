/* The operations of vector.h that need an instruction of their own, with NEON: four lanes a register. */
#ifndef EDGEPRESS_VECTOR_NEON_H
#define EDGEPRESS_VECTOR_NEON_H

#define TILE_LANES 4
typedef int32_t tile_ints __attribute__((vector_size(16), may_alias));
typedef uint32_t tile_words __attribute__((vector_size(16), may_alias));
typedef float tile_floats __attribute__((vector_size(16), may_alias));
typedef union { floats whole; float32x4_t part[4]; } float_parts;
typedef union { ints whole; tile_ints part[4]; } int_parts;

INLINE tile_floats tile_fused(tile_floats a, tile_floats b, tile_floats c) {
    return (tile_floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

/* `small`: codes below 128, which are the same numbers with a sign. Others are taken less 128, and the sum is made
 * good by 128 times that of their factors. */
INLINE tile_ints tile_dot4(tile_ints sum, tile_words codes, int32_t quad, const int small) {
    int8x16_t factors = vreinterpretq_s8_s32(vdupq_n_s32(quad));
#if defined(EDGEPRESS_I8MM)
    (void)small;
    return (tile_ints)vusdotq_s32((int32x4_t)sum, (uint8x16_t)codes, factors);
#else
    int8x16_t numbers = (int8x16_t)(codes ^ (small ? 0 : 0x80808080u));
#if defined(EDGEPRESS_DOTPROD)
    if (!small) sum -= (tile_ints)vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(-128), factors);
    return (tile_ints)vdotq_s32((int32x4_t)sum, numbers, factors);
#else
    if (!small) sum += 128 * (tile_ints)vpaddlq_s16(vpaddlq_s8(factors));
    int16x8_t low = vmull_s8(vget_low_s8(numbers), vget_low_s8(factors)), high = vmull_high_s8(numbers, factors);
    return sum + (tile_ints)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
#endif
#endif
}

#if defined(EDGEPRESS_I8MM)
/* Four inputs of four numbers, and the next four of the same, become eight inputs of two numbers each. */
INLINE void tile_pair(tile_words *first, tile_words *second) {
    uint32x4_t a = (uint32x4_t)*first, b = (uint32x4_t)*second;
    *first = (tile_words)vzip1q_u32(a, b), *second = (tile_words)vzip2q_u32(a, b);
}
/* Adds the products of two outputs' codes and two rows' factors, eight inputs each: the sums of an output's rows stand
 * side by side. */
INLINE tile_ints tile_dot8(tile_ints sum, tile_words codes, tile_words factors) {
    return (tile_ints)vusmmlaq_s32((int32x4_t)sum, (uint8x16_t)codes, (int8x16_t)factors);
}
/* Eight inputs of a row, and of another, as factors. */
INLINE tile_words tile_factors(const int8_t *row, const int8_t *next) {
    return (tile_words)vcombine_s8(vld1_s8(row), vld1_s8(next));
}
/* Such sums of four outputs, added to those of each of the two rows. */
INLINE void tile_add_pair(tile_ints *row, tile_ints *next, tile_ints low, tile_ints high) {
    *row += (tile_ints)vuzp1q_s32((int32x4_t)low, (int32x4_t)high);
    *next += (tile_ints)vuzp2q_s32((int32x4_t)low, (int32x4_t)high);
}
#endif

INLINE tile_floats tile_nearest(tile_floats value) { return (tile_floats)vrndnq_f32((float32x4_t)value); }
INLINE tile_floats tile_maximum(tile_floats a, tile_floats b) {
    return (tile_floats)vbslq_f32(vcgtq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
}
INLINE tile_floats tile_minimum(tile_floats a, tile_floats b) {
    return (tile_floats)vbslq_f32(vcltq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b);
}
INLINE void tile_store_bytes(int8_t *into, tile_ints value) {
    int8x8_t narrow = vmovn_s16(vcombine_s16(vmovn_s32((int32x4_t)value), vdup_n_s16(0)));
    memcpy(into, &narrow, 4);
}

INLINE floats fused(floats a, floats b, floats c) {
    float_parts x = {a}, y = {b}, z = {c};
    for (int i = 0; i < 4; i++) z.part[i] = vfmaq_f32(z.part[i], x.part[i], y.part[i]);
    return z.whole;
}
INLINE ints dot4(ints sum, words codes, int32_t quad) {
    int_parts total = {sum}, parts = {(ints)codes};
    for (int i = 0; i < 4; i++) total.part[i] = tile_dot4(total.part[i], (tile_words)parts.part[i], quad, 0);
    return total.whole;
}
INLINE ints dot2(ints sum, words codes, int32_t pair) {
    int_parts total = {sum}, parts = {(ints)codes};
    int16x8_t factors = vreinterpretq_s16_s32(vdupq_n_s32(pair));
    for (int i = 0; i < 4; i++) {
        int16x8_t numbers = (int16x8_t)parts.part[i];
        int32x4_t low = vmull_s16(vget_low_s16(numbers), vget_low_s16(factors)), high = vmull_high_s16(numbers, factors);
        total.part[i] += (tile_ints)vpaddq_s32(low, high);
    }
    return total.whole;
}
INLINE floats nearest(floats value) {
    float_parts x = {value};
    for (int i = 0; i < 4; i++) x.part[i] = vrndnq_f32(x.part[i]);
    return x.whole;
}
#endif
