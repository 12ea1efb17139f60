/* The integer product as ONNX Runtime calls it, alone or followed by the sum with a residual and its norm. */
#include "product.h"
#include "tensors.h"

#include <stdlib.h>

/* Products that one task computes: enough to be worth a thread's while. */
#define TASK_PRODUCTS ((int64_t)4 << 20)
#define MOST_TASK_ROWS 256
/* Rows that are rounded, or normed, by one task. */
#define ROWS_EACH 32

typedef struct {
    ort_api api;
    const encoder_kernels *kernels;
    int64_t n, k, activation, exact;
    float input_scale, epsilon;
} integer_kernel;

ort_status *create_integer(const ort_operator *op, ort_api api, const void *info, void **kernel) {
    integer_kernel made = {.api = api, .kernels = &best_kernels()->encoder};
    (void)op;
    made.n = integer_or(api, info, "N", 0), made.k = integer_or(api, info, "K", 0);
    made.activation = integer_or(api, info, "activation", 0), made.exact = integer_or(api, info, "exact", 0);
    made.input_scale = number_or(api, info, "input_scale", 0), made.epsilon = number_or(api, info, "epsilon", 0);
    if (made.n < 1 || made.n > 1 << 30) REFUSE(api, "N must be from 1 to 2^30");
    if (made.k < 1 || made.k > MOST_INPUTS) REFUSE(api, "K must be from 1 to 65536");
    if (made.activation < 0 || made.activation >= ACTIVATIONS) REFUSE(api, "an activation that is not known");
    if (!(made.input_scale >= 0 && made.input_scale < 1e30f)) REFUSE(api, "a scale of activations that is none");
    if (made.input_scale > 0 && made.input_scale < 1e-30f) REFUSE(api, "a scale of activations that is too small");
    integer_kernel *kept = malloc(sizeof *kept);
    if (!kept) return NO_MEMORY(api);
    *kept = made;
    *kernel = kept;
    return NULL;
}

typedef struct {
    const integer_kernel *kernel;
    integer_weights weights;
    integer_inputs inputs;
    layer_norm norm;
    const float *x, *residual;
    float *out;
    int64_t rows, rows_per_task, tiles_per_task, tile_tasks;
} integer_work;

static int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

static void quantize_task(void *data, size_t task) {
    integer_work *work = data;
    int64_t row = (int64_t)task * ROWS_EACH, end = lesser(row + ROWS_EACH, work->rows);
    for (; row < end; row++)
        work->kernel->kernels->quantize(&work->weights, work->x + row * work->weights.k, &work->inputs, row);
}

static void product_task(void *data, size_t task) {
    integer_work *work = data;
    const integer_weights *w = &work->weights;
    const encoder_kernels *kernels = work->kernel->kernels;
    int64_t row = (int64_t)task / work->tile_tasks * work->rows_per_task;
    int64_t end = lesser(row + work->rows_per_task, work->rows);
    int64_t first = (int64_t)task % work->tile_tasks * work->tiles_per_task;
    int64_t last = lesser(first + work->tiles_per_task, tiles_of(w->n));
    if (work->kernel->exact) kernels->exact(w, work->x, first, last, row, end, work->out);
    else kernels->product(w, &work->inputs, first, last, row, end, work->out);
}

static void norm_task(void *data, size_t task) {
    integer_work *work = data;
    int64_t row = (int64_t)task * ROWS_EACH, end = lesser(row + ROWS_EACH, work->rows), n = work->weights.n;
    for (; row < end; row++) {
        float *out = work->out + row * n;
        work->kernel->kernels->normalize(&work->norm, out, work->residual + row * n, NULL, out);
    }
}

/* Rows and tiles for each task: a task reads its weights once for its rows. */
static void divide(integer_work *work) {
    int64_t tiles = tiles_of(work->weights.n), rows = lesser(work->rows, MOST_TASK_ROWS);
    work->rows_per_task = rows;
    work->tiles_per_task = lesser(tiles, (TASK_PRODUCTS / (rows * work->weights.k * 16) / 3 + 1) * 3);
    work->tile_tasks = (tiles + work->tiles_per_task - 1) / work->tiles_per_task;
}

/* A task for every ROWS_EACH rows. */
static ort_status *by_rows(integer_work *work, void *context, void (*task)(void *, size_t)) {
    if (work->rows > ROWS_EACH)
        return ort_parallel(work->kernel->api, context, task, (size_t)((work->rows + ROWS_EACH - 1) / ROWS_EACH), 0, work);
    task(work, 0);
    return NULL;
}

ort_status *compute_integer(void *data, void *context) {
    integer_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor in[8]; /* x, tiles, scales, zeros, bias, residual, scale and bias of the norm */
    for (size_t i = 0; i < 8; i++) TRY(read_input(api, context, i, &in[i]));
    tensor *x = &in[0];
    int64_t n = kernel->n, k = kernel->k, quads = integer_quads(k), rows = x->count / k, stride = integer_stride(k) * kernel->kernels->code_bytes;
    if (x->rank < 1 || x->sizes[x->rank - 1] != k) REFUSE(api, "activations that do not have K channels");
    if (in[1].count != tiles_of(n) * quads * 64 || in[2].count != n) REFUSE(api, "weights of another size than N and K say");
    if ((in[3].data && in[3].count != n) || (in[4].data && in[4].count != n))
        REFUSE(api, "a bias or zero points of another size than N");
    if (in[5].data && (in[5].count != rows * n || in[6].count != n || in[7].count != n))
        REFUSE(api, "a residual or a norm of another size than the product");
    integer_work work = {.kernel = kernel, .x = x->data, .residual = in[5].data, .rows = rows};
    work.weights = (integer_weights){in[1].data, in[2].data, in[3].data, in[4].data, n, k, quads,
                                     kernel->input_scale, (int32_t)kernel->activation};
    work.norm = (layer_norm){in[6].data, in[7].data, n, kernel->epsilon};
    x->sizes[x->rank - 1] = n;
    TRY(make_output(api, context, 0, x->sizes, x->rank, (void **)&work.out));
    if (!rows) return NULL;
    char *scratch = malloc((size_t)rows * (size_t)(stride + 8) + READ_BEYOND);
    if (!scratch) return NO_MEMORY(api);
    work.inputs = (integer_inputs){(int8_t *)(scratch + 8 * rows), (float *)(void *)scratch,
                                   (int32_t *)(void *)(scratch + 4 * rows), stride};
    divide(&work);
    int64_t blocks = (rows + work.rows_per_task - 1) / work.rows_per_task;
    ort_status *status = NULL;
    if (!kernel->exact) status = by_rows(&work, context, quantize_task);
    if (!status) status = ort_parallel(api, context, product_task, (size_t)(blocks * work.tile_tasks), 0, &work);
    if (!status && work.residual) status = by_rows(&work, context, norm_task);
    free(scratch);
    return status;
}
