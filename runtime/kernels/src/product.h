/* The quantized product: y [rows, n] = x [rows, k] · dequantized(weights [n, k])ᵀ + bias.
 *
 * Weights lie in tiles of 16 outputs. A tile has the scales of its groups of inputs, 16 float16 or float32 for
 * each; where codes have zero points, 16 bytes of those for each; what fills a line of 64 bytes; and then the codes
 * of all its inputs. Codes are unsigned and stand in lines of 64 bytes, 4 for each output: at 8 bits a line holds 4
 * inputs, byte b of an output being input b; at 4 bits the low halves hold 4 inputs and the high ones the next 4; at
 * 2 bits there are 4 such parts. At 3 and 5 bits the two or four lines of the low bits of 32 inputs, 2 or 4 of each, are
 * followed by one of their last bits; at 6 bits the two lines of the four low bits of 16 inputs by one of their two high
 * bits. Inputs are filled to whole lines, in multiples of 16, or 32 at 3 and 5 bits. The words of a trellis stand in
 * the place of codes as trellis.inc says.
 *
 * Activations are rounded to int8, one scale for each row and group. Several groups may share one scale of the
 * weights, all of them where these have one for each output.
 */
#ifndef EDGEPRESS_PRODUCT_H
#define EDGEPRESS_PRODUCT_H

#include "attention.h"
#include "encoder.h"
#include "rotation.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *tiles;
    const float *bias; /* [n] or NULL */
    int64_t n, k;
    int32_t group, bits;
    int32_t shared; /* groups of activations to a scale of the weights */
    int32_t has_zero_points, half_scales, trellis;
    int64_t half; /* tiles of each half where their tasks take some of one and as many of the other in turn, or 0 */
} product_weights;

/* Inputs that may share a scale of activations. */
#define LARGEST_GROUP 1024
/* Bytes that may be read behind the last codes of activations, whatever they are: by tiles of matrices, which take
 * them times zero. */
#define READ_BEYOND 64

/* Of a row's group of activations: its scale, and its codes' negative sum. */
typedef struct {
    float scale;
    int32_t sum;
} product_number;

/* Activations in int8, in blocks of the rows that products take at once, which lie side by side: of a block the codes
 * are [padded k / 4, rows, 4] and the numbers [groups, rows]. */
typedef struct {
    int8_t *codes;
    product_number *numbers;
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
    /* One output's weights [k], dequantized. */
    void (*dequantize)(const product_weights *w, int64_t row, float *out);
    /* out = silu(gate) · up, `count` numbers that are a multiple of 16. */
    void (*gate)(const float *gate, const float *up, float *out, int64_t count);
    /* total = a + b + c and out = its root mean square norm, of one row; b and c may be NULL, and with them total. */
    void (*root_mean_square)(const layer_norm *norm, const float *a, const float *b, const float *c, float *total, float *out);
    void (*rotate_inputs)(const input_rotation *of, const float *x, float *out, float *room);
    void (*prepare_token)(const attention_job *job, int64_t index);
    void (*attend_chunk)(const attention_job *job, int64_t task);
    void (*join_chunks)(const attention_job *job, int64_t index, int64_t head);
    /* Floats of scratch that attend_tile needs. */
    int64_t (*tile_scratch)(const attention_job *job);
    void (*attend_tile)(const attention_job *job, int64_t task, float *scratch);
    encoder_kernels encoder;
} kernel_set;

static inline int64_t groups_of(int64_t k, int32_t group) { return (k + group - 1) / group; }
static inline int64_t tiles_of(int64_t n) { return (n + 15) / 16; }
/* Inputs that are stored, with those that fill the last lines. */
static inline int64_t padded_of(const product_weights *w) {
    return !w->trellis && (w->bits == 3 || w->bits == 5) ? (w->k + 31) / 32 * 32 : (w->k + 15) / 16 * 16;
}
static inline int64_t scale_groups(const product_weights *w) {
    return (groups_of(w->k, w->group) + w->shared - 1) / w->shared;
}
static inline int64_t scale_bytes(const product_weights *w) { return w->half_scales ? 32 : 64; }
/* From a tile's beginning to its codes. */
static inline int64_t head_bytes(const product_weights *w) {
    return (scale_groups(w) * (scale_bytes(w) + (w->has_zero_points ? 16 : 0)) + 63) / 64 * 64;
}
static inline int64_t tile_bytes(const product_weights *w) { return head_bytes(w) + 2 * w->bits * padded_of(w); }

extern const kernel_set kernels_plain;
#if defined(__x86_64__)
extern const kernel_set kernels_avx2, kernels_avxvnni, kernels_avx512, kernels_amx;
#elif defined(__aarch64__)
extern const kernel_set kernels_neon, kernels_dotprod, kernels_i8mm;
#endif
const kernel_set *best_kernels(void);
#endif
