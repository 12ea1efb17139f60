/* Products with quantized weights, and rows of a quantized table, as ONNX Runtime calls them: sizes are checked
 * against the tensors that came before a pointer is made, and work is divided into tasks of fixed size.
 *
 * A task's result does not depend on who computes it: any number of threads gives the same bits.
 */
#include "product.h"
#include "tensors.h"

#include <stdlib.h>

/* Bytes of weights that one task reads: enough to be worth a thread's while. */
#define TASK_BYTES ((int64_t)48 << 10)
/* Rows that one task rounds. */
#define TASK_ROWS 8

typedef struct {
    ort_api api;
    const kernel_set *kernels;
    product_weights weights; /* without its pointers */
    int64_t bytes, gated, exact;
} product_kernel;

ort_status *create_product(const ort_operator *op, ort_api api, const void *info, void **kernel) {
    product_weights w = {0};
    (void)op;
    w.n = integer_or(api, info, "N", 0);
    w.k = integer_or(api, info, "K", 0);
    int64_t bits = integer_or(api, info, "bits", 0), group = integer_or(api, info, "group", 0);
    int64_t gated = integer_or(api, info, "gated", 0);
    if (w.n < 1 || w.k < 1 || w.n > (1 << 30) || w.k > (1 << 30)) REFUSE(api, "N and K must be from 1 to 2^30");
    if (bits < 2 || bits == 7 || bits > 8) REFUSE(api, "bits must be 2, 3, 4, 5, 6 or 8");
    if (group < 16 || group > LARGEST_GROUP || group % 16) REFUSE(api, "group must be a multiple of 16 up to 1024");
    if (gated && w.n % 32) REFUSE(api, "a gated product needs N that is a multiple of 32");
    w.bits = (int32_t)bits, w.group = (int32_t)group;
    w.has_zero_points = integer_or(api, info, "zero_points", 0) != 0;
    w.trellis = integer_or(api, info, "trellis", 0) != 0;
    if (w.trellis && (bits > 4 || w.has_zero_points)) REFUSE(api, "words have 2, 3 or 4 bits and no zero points");
    int64_t scale_bits = integer_or(api, info, "scale_bits", 0);
    if (scale_bits != 16 && scale_bits != 32)
        REFUSE(api, "weights of an earlier layout (without scale_bits): export the checkpoint again");
    w.half_scales = scale_bits == 16;
    int64_t shared = integer_or(api, info, "shared", 1);
    if (shared < 1 || shared > (1 << 30)) REFUSE(api, "shared must be from 1 to 2^30");
    w.shared = (int32_t)shared;
    if (gated) w.half = tiles_of(w.n) / 2;
    if (tiles_of(w.n) > MOST / tile_bytes(&w)) REFUSE(api, "weights that are too large");
    product_kernel *made = malloc(sizeof *made);
    if (!made) return NO_MEMORY(api);
    made->api = api, made->kernels = best_kernels(), made->weights = w, made->gated = gated;
    made->exact = integer_or(api, info, "exact", 0);
    made->bytes = tiles_of(w.n) * tile_bytes(&w);
    *kernel = made;
    return NULL;
}

typedef struct {
    const product_kernel *kernel;
    product_weights weights;
    product_inputs inputs;
    const float *x;
    float *out, *wide; /* `wide` [rows, n] is where a gated product stands before its halves are joined */
    int64_t tiles_per_task, rows_per_task;
} product_work;

static void quantize_task(void *data, size_t task) {
    product_work *work = data;
    int64_t first = (int64_t)task * work->rows_per_task, last = first + work->rows_per_task;
    for (int64_t row = first; row < last && row < work->inputs.rows; row++)
        work->kernel->kernels->quantize(work->x + row * work->weights.k, work->weights.k, work->weights.group,
                                        &work->inputs, row);
}

static void tiles_of_rows(const product_work *work, int64_t first, int64_t last, float *out) {
    const product_weights *w = &work->weights;
    if (work->kernel->exact) work->kernel->kernels->exact(w, work->x, work->inputs.rows, first, last, out, w->n);
    else work->kernel->kernels->product(w, &work->inputs, first, last, out, w->n);
}

static void product_task(void *data, size_t task) {
    product_work *work = data;
    const product_weights *w = &work->weights;
    int64_t tiles = tiles_of(w->n), first = (int64_t)task * work->tiles_per_task;
    int64_t last = first + work->tiles_per_task;
    if (!work->kernel->gated) {
        tiles_of_rows(work, first, last < tiles ? last : tiles, work->out);
        return;
    }
    int64_t half = tiles / 2;
    if (last > half) last = half;
    tiles_of_rows(work, first, last, work->wide);
    tiles_of_rows(work, first + half, last + half, work->wide);
    for (int64_t row = 0; row < work->inputs.rows; row++) {
        const float *gate = work->wide + row * w->n + first * 16;
        work->kernel->kernels->gate(gate, gate + w->n / 2, work->out + row * (w->n / 2) + first * 16,
                                    (last - first) * 16);
    }
}

/* The rows of `work`, all times the same weights. */
static ort_status *multiply(void *context, product_work *work) {
    const product_kernel *kernel = work->kernel;
    ort_api api = kernel->api;
    int64_t k = work->weights.k, n = work->weights.n, rows = work->inputs.rows;
    int64_t groups = groups_of(k, work->weights.group), padded = padded_of(&work->weights);
    size_t codes = (size_t)(rows * padded), numbers = (size_t)(rows * groups) * sizeof(product_number);
    size_t wide = kernel->gated ? (size_t)(rows * n) * 4 : 0;
    char *scratch = malloc(codes + numbers + wide + READ_BEYOND);
    if (!scratch) return NO_MEMORY(api);
    work->wide = (float *)(void *)scratch;
    work->inputs = (product_inputs){(int8_t *)(scratch + wide + numbers), (product_number *)(void *)(scratch + wide),
                                    rows, padded, groups};
    work->rows_per_task = TASK_ROWS;
    int64_t tiles = tiles_of(n) / (kernel->gated ? 2 : 1);
    /* A task reads its weights once for every eight rows, so that more rows need fewer of them: in pairs, which the
     * kernels of many rows take at once. */
    work->tiles_per_task = (TASK_BYTES / tile_bytes(&work->weights) / (1 + rows / 8) + 2) / 2 * 2;
    ort_status *status = NULL;
    if (rows > work->rows_per_task && !kernel->exact)
        status = ort_parallel(api, context, quantize_task, (size_t)((rows + TASK_ROWS - 1) / TASK_ROWS), 0, work);
    else if (!kernel->exact) quantize_task(work, 0);
    size_t tasks = (size_t)((tiles + work->tiles_per_task - 1) / work->tiles_per_task);
    if (!status) status = ort_parallel(api, context, product_task, tasks, 0, work);
    free(scratch);
    return status;
}

ort_status *compute_product(void *data, void *context) {
    product_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor x, w, bias;
    TRY(read_input(api, context, 0, &x));
    TRY(read_input(api, context, 1, &w));
    TRY(read_input(api, context, 2, &bias));
    product_work work = {.kernel = kernel, .weights = kernel->weights, .x = x.data};
    int64_t k = work.weights.k, n = work.weights.n;
    if (x.rank < 1 || x.sizes[x.rank - 1] != k) REFUSE(api, "activations that do not have K channels");
    if (w.count != kernel->bytes) REFUSE(api, "weights of another size than the attributes say");
    if (bias.data && bias.count != n) REFUSE(api, "a bias of another size than N");
    x.sizes[x.rank - 1] = kernel->gated ? n / 2 : n;
    TRY(make_output(api, context, 0, x.sizes, x.rank, (void **)&work.out));
    work.weights.tiles = w.data, work.weights.bias = bias.data, work.inputs.rows = x.count / k;
    return x.count ? multiply(context, &work) : NULL;
}

/* Of several matrices each times rows of its own: those of the first come first. One without rows is not read. */
ort_status *compute_routed(void *data, void *context) {
    product_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor x, w, rows;
    TRY(read_input(api, context, 0, &x));
    TRY(read_input(api, context, 1, &w));
    TRY(read_input(api, context, 2, &rows));
    product_work work = {.kernel = kernel, .weights = kernel->weights, .x = x.data};
    int64_t k = work.weights.k, width = kernel->gated ? work.weights.n / 2 : work.weights.n;
    if (x.rank != 2 || x.sizes[1] != k) REFUSE(api, "rows that do not have K channels");
    if (!rows.count || w.count % rows.count || w.count / rows.count != kernel->bytes)
        REFUSE(api, "weights of another size than the attributes say");
    int64_t left = x.sizes[0];
    for (int64_t i = 0; i < rows.count; i++) {
        int64_t mine = ((const int64_t *)rows.data)[i];
        if (mine < 0 || mine > left) REFUSE(api, "numbers of rows that do not add up to those that there are");
        left -= mine;
    }
    if (left) REFUSE(api, "numbers of rows that do not add up to those that there are");
    x.sizes[1] = width;
    TRY(make_output(api, context, 0, x.sizes, 2, (void **)&work.out));
    for (int64_t i = 0; i < rows.count; i++) {
        int64_t mine = ((const int64_t *)rows.data)[i];
        if (!mine) continue;
        work.weights.tiles = (const uint8_t *)w.data + i * kernel->bytes, work.inputs.rows = mine;
        TRY(multiply(context, &work));
        work.x += mine * k, work.out += mine * width;
    }
    return NULL;
}

ort_status *compute_rows(void *data, void *context) {
    product_kernel *kernel = data;
    ort_api api = kernel->api;
    product_weights w = kernel->weights;
    tensor table, ids;
    float *out;
    TRY(read_input(api, context, 0, &table));
    TRY(read_input(api, context, 1, &ids));
    if (table.count != kernel->bytes) REFUSE(api, "a table of another size than the attributes say");
    if (ids.rank > 5) REFUSE(api, "ids of more than 5 axes");
    ids.sizes[ids.rank] = w.k;
    TRY(make_output(api, context, 0, ids.sizes, ids.rank + 1, (void **)&out));
    w.tiles = table.data;
    for (int64_t i = 0; i < ids.count; i++) {
        int64_t id = ((const int64_t *)ids.data)[i];
        if (id < 0 || id >= w.n) REFUSE(api, "an id outside the table");
        kernel->kernels->dequantize(&w, id, out + i * w.k);
    }
    return NULL;
}
