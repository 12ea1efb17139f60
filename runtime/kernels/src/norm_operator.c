/* Norms as ONNX Runtime calls them: of LayerNorm, or by the root mean square, of a sum of up to three. */
#include "product.h"
#include "tensors.h"

#include <stdlib.h>

/* Rows that one task norms. */
#define TASK_ROWS 32

typedef struct {
    ort_api api;
    const kernel_set *kernels;
    float epsilon;
} norm_kernel;

ort_status *create_norm(const ort_operator *op, ort_api api, const void *info, void **kernel) {
    norm_kernel *made = malloc(sizeof *made);
    (void)op;
    if (!made) return NO_MEMORY(api);
    *made = (norm_kernel){api, best_kernels(), number_or(api, info, "epsilon", 0)};
    *kernel = made;
    return NULL;
}

typedef struct {
    const norm_kernel *kernel;
    layer_norm norm;
    const float *a, *b, *c;
    float *total, *out;
    int64_t rows, b_stride, c_stride;
} norm_work;

static void norm_task(void *data, size_t task) {
    norm_work *work = data;
    const kernel_set *kernels = work->kernel->kernels;
    int64_t width = work->norm.width, row = (int64_t)task * TASK_ROWS;
    for (int64_t end = row + TASK_ROWS; row < end && row < work->rows; row++) {
        const float *a = work->a + row * width, *b = work->b ? work->b + row * work->b_stride : NULL;
        const float *c = work->c ? work->c + row * work->c_stride : NULL;
        float *out = work->out + row * width;
        if (work->norm.bias) kernels->encoder.normalize(&work->norm, a, b, c, out);
        else kernels->root_mean_square(&work->norm, a, b, c, work->total ? work->total + row * width : NULL, out);
    }
}

/* The rows [.., width] that are normed, at input `first`, and what is added to them: of their size, or one row for all. */
static ort_status *read_sum(norm_kernel *kernel, void *context, size_t first, tensor *rows, norm_work *work) {
    ort_api api = kernel->api;
    tensor scale, more[2];
    TRY(read_input(api, context, 0, &scale));
    TRY(read_input(api, context, first, rows));
    for (size_t i = 0; i < 2; i++) TRY(read_input(api, context, first + 1 + i, &more[i]));
    int64_t width = scale.count;
    if (width < 1 || rows->rank < 1 || rows->sizes[rows->rank - 1] != width) REFUSE(api, "a norm of another width than the rows");
    for (int i = 0; i < 2; i++)
        if (more[i].data && more[i].count != rows->count && more[i].count != width) REFUSE(api, "rows of different sizes");
    *work = (norm_work){.kernel = kernel, .norm = {scale.data, NULL, width, kernel->epsilon}, .rows = rows->count / width};
    work->a = rows->data, work->b = more[0].data, work->c = more[1].data;
    work->b_stride = more[0].count == rows->count ? width : 0, work->c_stride = more[1].count == rows->count ? width : 0;
    return NULL;
}

static ort_status *norm_rows(norm_work *work, void *context) {
    size_t tasks = (size_t)((work->rows + TASK_ROWS - 1) / TASK_ROWS);
    if (tasks > 1) return ort_parallel(work->kernel->api, context, norm_task, tasks, 0, work);
    if (tasks) norm_task(work, 0);
    return NULL;
}

/* The LayerNorm of a sum. */
ort_status *compute_sum_norm(void *data, void *context) {
    ort_api api = ((norm_kernel *)data)->api;
    tensor bias, rows;
    norm_work work;
    TRY(read_sum(data, context, 2, &rows, &work));
    TRY(read_input(api, context, 1, &bias));
    if (bias.count != work.norm.width) REFUSE(api, "a norm of another width than the rows");
    work.norm.bias = bias.data;
    TRY(make_output(api, context, 0, rows.sizes, rows.rank, (void **)&work.out));
    return norm_rows(&work, context);
}

/* The root mean square norm of rows. */
ort_status *compute_root_mean_square(void *data, void *context) {
    tensor rows;
    norm_work work;
    TRY(read_sum(data, context, 1, &rows, &work));
    TRY(make_output(work.kernel->api, context, 0, rows.sizes, rows.rank, (void **)&work.out));
    return norm_rows(&work, context);
}

/* The same of a sum, and the sum. */
ort_status *compute_sum_root_mean_square(void *data, void *context) {
    tensor rows;
    norm_work work;
    TRY(read_sum(data, context, 1, &rows, &work));
    TRY(make_output(work.kernel->api, context, 0, rows.sizes, rows.rank, (void **)&work.out));
    TRY(make_output(work.kernel->api, context, 1, rows.sizes, rows.rank, (void **)&work.total));
    return norm_rows(&work, context);
}
