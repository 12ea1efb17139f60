/* Tensors and attributes as an operator reads them, with every size checked. */
#include "tensors.h"

#include <string.h>

static ort_status *read_shape(ort_api api, const void *value, tensor *into) {
    void *info;
    TRY(ort_shape_of(api, value, &info));
    ort_status *status = ort_rank(api, info, &into->rank);
    if (!status && into->rank > 6) status = ort_error(api, ORT_INVALID_ARGUMENT, OPERATOR_DOMAIN ": a tensor of more than 6 axes");
    if (!status) status = ort_sizes(api, info, into->sizes, into->rank);
    if (!status) status = ort_element_type(api, info, &into->type);
    ort_free_shape(api, info);
    if (status) return status;
    into->count = 1;
    for (size_t axis = 0; axis < into->rank; axis++) {
        if (into->sizes[axis] < 0 || into->sizes[axis] > MOST || (into->sizes[axis] && into->count > MOST / into->sizes[axis]))
            REFUSE(api, "a tensor that is too large");
        into->count *= into->sizes[axis];
    }
    return NULL;
}

ort_status *read_input(ort_api api, void *context, size_t index, tensor *into) {
    size_t count;
    const void *value = NULL;
    memset(into, 0, sizeof *into);
    TRY(ort_input_count(api, context, &count));
    if (index >= count) return NULL;
    TRY(ort_input(api, context, index, &value));
    if (!value) return NULL;
    TRY(read_shape(api, value, into));
    return ort_data(api, (void *)(uintptr_t)value, &into->data);
}

ort_status *make_output(ort_api api, void *context, size_t index, const int64_t *sizes, size_t rank, void **data) {
    void *value;
    TRY(ort_output(api, context, index, sizes, rank, &value));
    return ort_data(api, value, data);
}

int64_t integer_or(ort_api api, const void *info, const char *name, int64_t otherwise) {
    int64_t value;
    ort_status *status = ort_integer(api, info, name, &value);
    if (!status) return value;
    ort_free_status(api, status);
    return otherwise;
}

float number_or(ort_api api, const void *info, const char *name, float otherwise) {
    float value;
    ort_status *status = ort_float(api, info, name, &value);
    if (!status) return value;
    ort_free_status(api, status);
    return otherwise;
}
