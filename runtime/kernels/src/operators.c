/* The operators of domain "edgepress", as ONNX Runtime asks about them, and their registration. */
#include "tensors.h"

#include <stdlib.h>

static void free_kernel(void *kernel) { free(kernel); }

typedef struct {
    ort_operator op;
    const char *name;
    const int *inputs; /* types, negative for one that may be left out, ended by 99 */
    int outputs[4];
    size_t output_count;
} described;

static const char *name_of(const ort_operator *op) { return ((const described *)op)->name; }
static const char *cpu(const ort_operator *op) { (void)op; return NULL; }
static size_t input_count(const ort_operator *op) {
    size_t count = 0;
    while (((const described *)op)->inputs[count] != 99) count++;
    return count;
}
static int input_type(const ort_operator *op, size_t i) { return abs(((const described *)op)->inputs[i]); }
static int input_kind(const ort_operator *op, size_t i) { return ((const described *)op)->inputs[i] < 0 ? INPUT_OPTIONAL : INPUT_REQUIRED; }
static size_t output_count(const ort_operator *op) { return ((const described *)op)->output_count; }
static int output_type(const ort_operator *op, size_t i) { return ((const described *)op)->outputs[i]; }
static int output_kind(const ort_operator *op, size_t i) { (void)op, (void)i; return INPUT_REQUIRED; }
static int default_memory(const ort_operator *op, size_t i) { (void)op, (void)i; return 0; }
static int one(const ort_operator *op) { (void)op; return 1; }
static int any_version(const ort_operator *op) { (void)op; return 0x7fffffff; }

static const int PRODUCT[] = {TYPE_FLOAT, TYPE_UINT8, -TYPE_FLOAT, 99};
static const int ROUTED[] = {TYPE_FLOAT, TYPE_UINT8, TYPE_INT64, 99};
static const int ROWS[] = {TYPE_UINT8, TYPE_INT64, 99};
#define ATTENTION(name, type) \
    static const int name[] = {TYPE_FLOAT, -TYPE_FLOAT, -TYPE_FLOAT, type, type, TYPE_INT32, TYPE_INT32, -TYPE_FLOAT, \
                               -TYPE_FLOAT, -TYPE_INT64, -TYPE_FLOAT, -TYPE_FLOAT, -TYPE_FLOAT, -TYPE_FLOAT, 99}
ATTENTION(OVER_FLOATS, TYPE_FLOAT);
ATTENTION(OVER_HALVES, TYPE_FLOAT16);
ATTENTION(OVER_BYTES, TYPE_INT8);
ATTENTION(OVER_PAIRS, TYPE_UINT8);

static const int INTEGER[] = {TYPE_FLOAT, TYPE_UINT8, TYPE_FLOAT, -TYPE_UINT8, -TYPE_FLOAT, -TYPE_FLOAT, -TYPE_FLOAT, -TYPE_FLOAT, 99};
static const int BATCH[] = {TYPE_INT64, TYPE_INT64, -TYPE_INT64, 99};
static const int PACKED[] = {TYPE_FLOAT, TYPE_INT64, 99};
static const int EMBEDDINGS[] = {TYPE_FLOAT, TYPE_FLOAT, TYPE_INT64, TYPE_INT64, TYPE_INT64, TYPE_UINT8, TYPE_FLOAT, TYPE_FLOAT,
                                 -TYPE_FLOAT, -TYPE_UINT8, 99};
static const int SUMS[] = {TYPE_FLOAT, TYPE_FLOAT, TYPE_FLOAT, -TYPE_FLOAT, -TYPE_FLOAT, 99};
static const int ROTATED[] = {TYPE_FLOAT, 99};
static const int SCALED[] = {TYPE_FLOAT, TYPE_FLOAT, 99};
static const int SCALED_SUMS[] = {TYPE_FLOAT, TYPE_FLOAT, TYPE_FLOAT, -TYPE_FLOAT, 99};

#define OPERATOR(create, compute) \
    {ORT_INTERFACE, NULL, name_of, cpu, input_type, input_count, output_type, output_count, NULL, free_kernel, input_kind, \
     output_kind, default_memory, one, one, one, one, create, compute, NULL, one, any_version, NULL, NULL, NULL, NULL}

static const described OPERATORS[] = {
    {OPERATOR(create_product, compute_product), "QuantizedProduct", PRODUCT, {TYPE_FLOAT}, 1},
    {OPERATOR(create_product, compute_routed), "RoutedProduct", ROUTED, {TYPE_FLOAT}, 1},
    {OPERATOR(create_product, compute_rows), "QuantizedRows", ROWS, {TYPE_FLOAT}, 1},
    {OPERATOR(create_attention, compute_attention), "CachedAttention", OVER_FLOATS, {TYPE_FLOAT, TYPE_FLOAT, TYPE_FLOAT}, 3},
    {OPERATOR(create_attention, compute_attention), "CachedAttention16", OVER_HALVES, {TYPE_FLOAT, TYPE_FLOAT16, TYPE_FLOAT16}, 3},
    {OPERATOR(create_attention, compute_attention), "CachedAttention8", OVER_BYTES, {TYPE_FLOAT, TYPE_INT8, TYPE_INT8}, 3},
    {OPERATOR(create_attention, compute_attention), "CachedAttention4", OVER_PAIRS, {TYPE_FLOAT, TYPE_UINT8, TYPE_UINT8}, 3},
    {OPERATOR(create_integer, compute_integer), "IntegerProduct", INTEGER, {TYPE_FLOAT}, 1},
    {OPERATOR(create_encoder, compute_pack), "PackTokens", BATCH, {TYPE_INT64, TYPE_INT64, TYPE_INT64, TYPE_INT64}, 4},
    {OPERATOR(create_encoder, compute_unpack), "UnpackTokens", PACKED, {TYPE_FLOAT}, 1},
    {OPERATOR(create_encoder, compute_pool), "PoolTokens", PACKED, {TYPE_FLOAT}, 1},
    {OPERATOR(create_rotation, compute_rotation), "RotateInputs", ROTATED, {TYPE_FLOAT}, 1},
    {OPERATOR(create_norm, compute_sum_norm), "SumNorm", SUMS, {TYPE_FLOAT}, 1},
    {OPERATOR(create_norm, compute_root_mean_square), "RootMeanSquareNorm", SCALED, {TYPE_FLOAT}, 1},
    {OPERATOR(create_norm, compute_sum_root_mean_square), "SumRootMeanSquareNorm", SCALED_SUMS, {TYPE_FLOAT, TYPE_FLOAT}, 2},
    {OPERATOR(create_encoder, compute_embeddings), "EncoderEmbeddings", EMBEDDINGS, {TYPE_FLOAT}, 1},
    {OPERATOR(create_encoder, compute_encoder_attention), "EncoderAttention", PACKED, {TYPE_FLOAT}, 1},
};

#if defined(_WIN32)
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
ort_status *RegisterCustomOps(void *options, const ort_base *base) {
    ort_api api = base->get_api(ORT_INTERFACE);
    void *domain;
    TRY(ort_new_domain(api, OPERATOR_DOMAIN, &domain));
    for (size_t i = 0; i < sizeof OPERATORS / sizeof *OPERATORS; i++) TRY(ort_add_operator(api, domain, &OPERATORS[i].op));
    return ort_add_domain(api, options, domain);
}
