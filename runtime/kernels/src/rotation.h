/* The rotation of inputs in front of a trellis: random signs, then an orthonormal Hadamard matrix, which is a Kronecker
 * product of the identity, Paley's matrices and Sylvester's (compress/numbers/input_rotation.py).
 */
#ifndef EDGEPRESS_ROTATION_H
#define EDGEPRESS_ROTATION_H

#include <stdint.h>

#define MOST_FACTORS 16

typedef struct {
    int64_t size, blocks; /* inputs, and the order of the identity */
    int64_t power;        /* the order of Sylvester's matrix, which comes last */
    int32_t count, orders[MOST_FACTORS]; /* of Paley's matrices */
    float scale;
    const float *signs; /* [size] */
} input_rotation;

/* Rows of Paley's matrix of order 12, 20 or 28: a bit for each entry that is -1. */
const uint32_t *paley_rows(int32_t order);
#endif
