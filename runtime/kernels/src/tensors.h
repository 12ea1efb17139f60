/* Tensors and attributes as an operator reads them, with every size checked. */
#ifndef EDGEPRESS_TENSORS_H
#define EDGEPRESS_TENSORS_H

#include "ort_interface.h"

#define OPERATOR_DOMAIN "edgepress"
#define MOST ((int64_t)1 << 40)
#define TRY(call) do { ort_status *status_ = (call); if (status_) return status_; } while (0)
#define REFUSE(api, text) return ort_error(api, ORT_INVALID_ARGUMENT, OPERATOR_DOMAIN ": " text)
#define NO_MEMORY(api) ort_error(api, ORT_FAIL, OPERATOR_DOMAIN ": Failed to allocate memory")

typedef struct {
    void *data;
    int64_t sizes[6], count;
    size_t rank;
    int type;
} tensor;

/* The input `index`; data is NULL for one that was left out. */
ort_status *read_input(ort_api api, void *context, size_t index, tensor *into);
ort_status *make_output(ort_api api, void *context, size_t index, const int64_t *sizes, size_t rank, void **data);
int64_t integer_or(ort_api api, const void *info, const char *name, int64_t otherwise);
float number_or(ort_api api, const void *info, const char *name, float otherwise);

/* What each operator brings: made from its attributes, then run. */
ort_status *create_product(const ort_operator *op, ort_api api, const void *info, void **kernel);
ort_status *compute_product(void *kernel, void *context);
ort_status *compute_routed(void *kernel, void *context);
ort_status *compute_rows(void *kernel, void *context);
ort_status *create_attention(const ort_operator *op, ort_api api, const void *info, void **kernel);
ort_status *compute_attention(void *kernel, void *context);
ort_status *create_integer(const ort_operator *op, ort_api api, const void *info, void **kernel);
ort_status *compute_integer(void *kernel, void *context);
ort_status *create_encoder(const ort_operator *op, ort_api api, const void *info, void **kernel);
ort_status *compute_pack(void *kernel, void *context);
ort_status *compute_unpack(void *kernel, void *context);
ort_status *compute_pool(void *kernel, void *context);
ort_status *compute_embeddings(void *kernel, void *context);
ort_status *compute_encoder_attention(void *kernel, void *context);
ort_status *create_rotation(const ort_operator *op, ort_api api, const void *info, void **kernel);
ort_status *compute_rotation(void *kernel, void *context);
ort_status *create_norm(const ort_operator *op, ort_api api, const void *info, void **kernel);
ort_status *compute_sum_norm(void *kernel, void *context);
ort_status *compute_root_mean_square(void *kernel, void *context);
ort_status *compute_sum_root_mean_square(void *kernel, void *context);
#endif
