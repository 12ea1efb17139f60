/* The quantized product: y [rows, n] = x [rows, k] · dequantized(weights [n, k])ᵀ + bias.
 *
 * Weights lie in tiles of 16 outputs. A tile has its groups of inputs one after the other, each with its codes,
 * 16 float32 scales, and, where codes have zero points, 16 bytes of those. Codes are unsigned and stand in lines
 * of 64 bytes, 4 for each output: at 8 bits a line holds 4 inputs, byte b of an output being input b; at 4 bits
 * the low halves hold 4 inputs and the high ones the next 4; at 2 bits there are 4 such parts. At 3 bits the two
 * low bits stand as 2-bit codes, followed by lines of the third bits, 32 inputs each.
 *
 * Activations are rounded to int8, one scale for each row and group.
 */
#ifndef EDGEPRESS_PRODUCT_H
#define EDGEPRESS_PRODUCT_H

#include "attention.h"
#include "encoder.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *tiles;
    const float *bias; /* [n] or NULL */
    int64_t n, k;
    int32_t group, bits;
    int32_t has_zero_points;
} product_weights;

/* Activations in int8: codes [rows, padded k], scales and sums of codes [rows, groups]. */
typedef struct {
    int8_t *codes;
    float *scales;
    int32_t *sums;
    int64_t rows, padded, groups;
} product_inputs;

typedef struct {
    const char *name;
    void (*quantize)(const float *x, int64_t k, int32_t group, product_inputs *into, int64_t row);
    /* Tiles `first` to `last` of all rows; out has a stride of `stride` floats between rows. */
    void (*product)(const product_weights *w, const product_inputs *x, int64_t first, int64_t last, float *out,
                    int64_t stride);
    /* The same with float activations x [rows, k], for comparison. */
    void (*exact)(const product_weights *w, const float *x, int64_t rows, int64_t first, int64_t last, float *out,
                  int64_t stride);
    /* out = silu(gate) · up, `count` numbers that are a multiple of 16. */
    void (*gate)(const float *gate, const float *up, float *out, int64_t count);
    void (*prepare_token)(const attention_job *job, int64_t index);
    void (*attend_chunk)(const attention_job *job, int64_t task);
    void (*join_chunks)(const attention_job *job, int64_t index, int64_t head);
    void (*attend_tile)(const attention_job *job, int64_t task, float *scratch);
    encoder_kernels encoder;
} kernel_set;

static inline int64_t code_bytes(int32_t group, int32_t bits) { return (int64_t)group * bits * 2; }
static inline int64_t group_bytes(int32_t group, int32_t bits, int32_t has_zero_points) {
    return code_bytes(group, bits) + 64 + (has_zero_points ? 16 : 0);
}
static inline int64_t groups_of(int64_t k, int32_t group) { return (k + group - 1) / group; }
static inline int64_t tiles_of(int64_t n) { return (n + 15) / 16; }
static inline int64_t weight_bytes(int64_t n, int64_t k, int32_t group, int32_t bits, int32_t zeros) {
    return tiles_of(n) * groups_of(k, group) * group_bytes(group, bits, zeros);
}

/* One output's weights [k], dequantized. */
void dequantize_row(const product_weights *w, int64_t row, float *out);

extern const kernel_set kernels_plain;
#if defined(__x86_64__)
extern const kernel_set kernels_avx2, kernels_avxvnni, kernels_avx512;
#elif defined(__aarch64__)
extern const kernel_set kernels_neon, kernels_dotprod, kernels_i8mm;
#endif
const kernel_set *best_kernels(void);
#endif
