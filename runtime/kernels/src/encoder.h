/* What encoders need besides the quantized product: products of integers, attention in both directions, norms.
 *
 * The integer product is y [rows, n] = activation(x [rows, k] · weights [n, k]ᵀ + bias), both operands in 8 bits.
 * Weights have a scale for each output, and activations one for each row, found at run time or given. Unsigned
 * codes lie in tiles of 16 outputs: lines of 64 bytes, 4 inputs for each output.
 *
 * Attention reads packed rows, the tokens of all sequences one after the other without padding.
 */
#ifndef EDGEPRESS_ENCODER_H
#define EDGEPRESS_ENCODER_H

#include <stdint.h>

enum { ACTIVATION_NONE, ACTIVATION_GELU, ACTIVATION_TANH_GELU, ACTIVATION_RELU, ACTIVATIONS };
/* A sum of so many products of codes fits 32 bits. */
#define MOST_INPUTS 65536

typedef struct {
    const uint8_t *tiles;
    const float *scales;  /* [n] */
    const uint8_t *zeros; /* [n], or NULL: 128 for all */
    const float *bias;    /* [n], or NULL */
    int64_t n, k, quads;  /* quads: lines of a tile */
    float input_scale;    /* of all activations; 0 where each row has its own */
    int32_t activation;
} integer_weights;

/* A text of so few tokens costs less in floats than in integers, which are filled up to 32. */
#define FEW_TOKENS 32

/* Rows of activations as codes [rows, stride], with their scales and sums of codes. `stride` is in bytes; a set of
 * instructions that multiplies pairs of 16 bits keeps codes so, of four inputs the even ones ahead of the odd ones. */
typedef struct {
    int8_t *codes;
    float *scales;
    int32_t *sums;
    int64_t stride;
} integer_inputs;

typedef struct {
    const float *scale, *bias; /* [width] */
    int64_t width;
    float epsilon;
} layer_norm;

typedef struct {
    const float *rows; /* [tokens, 3 · heads · dim]: queries, keys and values */
    const int64_t *offsets; /* where each sequence begins, and where the last one ends */
    float *out; /* [tokens, heads · dim] */
    int64_t heads, dim;
    float scale;
} encoder_attention;

typedef struct {
    void (*quantize)(const integer_weights *w, const float *x, integer_inputs *into, int64_t row);
    /* Tiles `first` to `last` of rows `row` to `end`; out [.., n] begins with row 0. */
    void (*product)(const integer_weights *w, const integer_inputs *x, int64_t first, int64_t last, int64_t row,
                    int64_t end, float *out);
    /* The same of float activations, for comparison. */
    void (*exact)(const integer_weights *w, const float *x, int64_t first, int64_t last, int64_t row, int64_t end,
                  float *out);
    /* out [width]: codes less their zero point (128 where there is none) times their scale, one for each `group`. */
    void (*dequantize)(const uint8_t *codes, const float *scales, const uint8_t *zeros, int64_t width, int64_t group,
                       float *out);
    /* out = norm(a + b + c) of one row; b and c may be NULL, and out may be any of them. */
    void (*normalize)(const layer_norm *norm, const float *a, const float *b, const float *c, float *out);
    /* sum += row, of `width` numbers. */
    void (*add)(const float *row, int64_t width, float *sum);
    /* One head of one sequence; scratch has attention_floats(tokens, dim). */
    void (*attend)(const encoder_attention *job, int64_t sequence, int64_t head, float *scratch);
    /* The same with integers of 16 bits. */
    void (*attend_pairs)(const encoder_attention *job, int64_t sequence, int64_t head, float *scratch);
    int64_t code_bytes; /* of one of the codes that `quantize` makes */
} encoder_kernels;

static inline int64_t integer_quads(int64_t k) { return (k + 3) / 4; }
static inline int64_t integer_stride(int64_t k) { return (k + 15) / 16 * 16; }
static inline int64_t attention_floats(int64_t tokens, int64_t dim) {
    int64_t padded = (dim + 31) / 32 * 32;
    return (tokens + 32) * (2 * padded + 32) + 32 * padded;
}
#endif
