/* What the operators need of ONNX Runtime's C interface, version 18 and later.
 *
 * The interface is a table of functions that only ever grows at its end: an entry keeps its place for good, so
 * that these places, taken from onnxruntime_c_api.h (MIT), hold for every later version.
 */
#ifndef EDGEPRESS_ORT_INTERFACE_H
#define EDGEPRESS_ORT_INTERFACE_H

#include <stddef.h>
#include <stdint.h>

#define ORT_INTERFACE 18
enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2, ORT_INVALID_GRAPH = 10 };
enum { TYPE_ANY = 0, TYPE_FLOAT = 1, TYPE_UINT8 = 2, TYPE_INT8 = 3, TYPE_INT32 = 6, TYPE_INT64 = 7, TYPE_FLOAT16 = 10 };
enum { INPUT_REQUIRED = 0, INPUT_OPTIONAL = 1 };

typedef struct ort_status ort_status;
typedef void *const *ort_api; /* the table */
typedef struct {
    ort_api (*get_api)(uint32_t version);
    const char *(*get_version)(void);
} ort_base;

#define ORT_CALL(api, place, result, ...) ((result(*)(__VA_ARGS__))(api)[place])
#define ort_error(api, code, text) ORT_CALL(api, 0, ort_status *, int, const char *)(code, text)
#define ort_new_domain(api, name, into) ORT_CALL(api, 26, ort_status *, const char *, void **)(name, into)
#define ort_add_operator(api, domain, op) ORT_CALL(api, 27, ort_status *, void *, const void *)(domain, op)
#define ort_add_domain(api, options, domain) ORT_CALL(api, 28, ort_status *, void *, void *)(options, domain)
#define ort_data(api, value, into) ORT_CALL(api, 51, ort_status *, void *, void **)(value, into)
#define ort_element_type(api, info, into) ORT_CALL(api, 60, ort_status *, const void *, int *)(info, into)
#define ort_rank(api, info, into) ORT_CALL(api, 61, ort_status *, const void *, size_t *)(info, into)
#define ort_sizes(api, info, into, count) ORT_CALL(api, 62, ort_status *, const void *, int64_t *, size_t)(info, into, count)
#define ort_shape_of(api, value, into) ORT_CALL(api, 65, ort_status *, const void *, void **)(value, into)
#define ort_float(api, info, name, into) ORT_CALL(api, 85, ort_status *, const void *, const char *, float *)(info, name, into)
#define ort_integer(api, info, name, into) ORT_CALL(api, 86, ort_status *, const void *, const char *, int64_t *)(info, name, into)
#define ort_input_count(api, context, into) ORT_CALL(api, 88, ort_status *, const void *, size_t *)(context, into)
#define ort_input(api, context, index, into) ORT_CALL(api, 90, ort_status *, const void *, size_t, const void **)(context, index, into)
#define ort_output(api, context, index, sizes, rank, into) \
    ORT_CALL(api, 91, ort_status *, void *, size_t, const int64_t *, size_t, void **)(context, index, sizes, rank, into)
#define ort_free_status(api, status) ORT_CALL(api, 93, void, ort_status *)(status)
#define ort_free_shape(api, info) ORT_CALL(api, 99, void, void *)(info)
#define ort_parallel(api, context, task, count, batches, data) \
    ORT_CALL(api, 274, ort_status *, const void *, void (*)(void *, size_t), size_t, size_t, void *) \
    (context, task, count, batches, data)

/* An operator, as ONNX Runtime wants it described. */
typedef struct ort_operator {
    uint32_t version;
    void *(*create)(const struct ort_operator *, ort_api, const void *info);
    const char *(*name)(const struct ort_operator *);
    const char *(*provider)(const struct ort_operator *);
    int (*input_type)(const struct ort_operator *, size_t);
    size_t (*input_count)(const struct ort_operator *);
    int (*output_type)(const struct ort_operator *, size_t);
    size_t (*output_count)(const struct ort_operator *);
    void (*compute)(void *, void *);
    void (*destroy)(void *);
    int (*input_kind)(const struct ort_operator *, size_t);
    int (*output_kind)(const struct ort_operator *, size_t);
    int (*input_memory)(const struct ort_operator *, size_t);
    int (*variadic_input_minimum)(const struct ort_operator *);
    int (*variadic_input_alike)(const struct ort_operator *);
    int (*variadic_output_minimum)(const struct ort_operator *);
    int (*variadic_output_alike)(const struct ort_operator *);
    ort_status *(*create_checked)(const struct ort_operator *, ort_api, const void *info, void **kernel);
    ort_status *(*compute_checked)(void *, void *context);
    ort_status *(*infer)(const struct ort_operator *, void *);
    int (*start_version)(const struct ort_operator *);
    int (*end_version)(const struct ort_operator *);
    size_t (*may_inplace)(int **, int **);
    void (*release_may_inplace)(int *, int *);
    size_t (*aliases)(int **, int **);
    void (*release_aliases)(int *, int *);
} ort_operator;
#endif
