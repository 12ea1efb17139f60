/* The operators of domain "edgepress", as ONNX Runtime calls them: sizes are checked against the tensors that came
 * before a pointer is made, work is divided into tasks of fixed size, and the kernels of this processor do it.
 *
 * A task's result does not depend on who computes it: any number of threads gives the same bits.
 */
#include "ort_interface.h"
#include "product.h"

#include <stdlib.h>
#include <string.h>

#define DOMAIN "edgepress"
#define MOST ((int64_t)1 << 40)
/* Bytes of weights that one task reads: enough to be worth a thread's while. */
#define TASK_BYTES ((int64_t)48 << 10)
#define TRY(call) do { ort_status *status_ = (call); if (status_) return status_; } while (0)
#define REFUSE(api, text) return ort_error(api, ORT_INVALID_ARGUMENT, DOMAIN ": " text)

typedef struct {
    void *data;
    int64_t sizes[6], count;
    size_t rank;
    int type;
} tensor;

static ort_status *read_shape(ort_api api, const void *value, tensor *into) {
    void *info;
    TRY(ort_shape_of(api, value, &info));
    ort_status *status = ort_rank(api, info, &into->rank);
    if (!status && into->rank > 6) status = ort_error(api, ORT_INVALID_ARGUMENT, DOMAIN ": a tensor of more than 6 axes");
    if (!status) status = ort_sizes(api, info, into->sizes, into->rank);
    if (!status) status = ort_element_type(api, info, &into->type);
    ort_free_shape(api, info);
    if (status) return status;
    into->count = 1;
    for (size_t axis = 0; axis < into->rank; axis++) {
        if (into->sizes[axis] < 0 || (into->sizes[axis] && into->count > MOST / into->sizes[axis]))
            REFUSE(api, "a tensor that is too large");
        into->count *= into->sizes[axis];
    }
    return NULL;
}

/* The input `index`; data is NULL for one that was left out. */
static ort_status *read_input(ort_api api, void *context, size_t index, tensor *into) {
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

static ort_status *make_output(ort_api api, void *context, size_t index, const int64_t *sizes, size_t rank,
                               void **data) {
    void *value;
    TRY(ort_output(api, context, index, sizes, rank, &value));
    return ort_data(api, value, data);
}

static int64_t integer_or(ort_api api, const void *info, const char *name, int64_t otherwise) {
    int64_t value;
    ort_status *status = ort_integer(api, info, name, &value);
    if (!status) return value;
    ort_free_status(api, status);
    return otherwise;
}

static float number_or(ort_api api, const void *info, const char *name, float otherwise) {
    float value;
    ort_status *status = ort_float(api, info, name, &value);
    if (!status) return value;
    ort_free_status(api, status);
    return otherwise;
}

/* ---- products -------------------------------------------------------------------------------------------- */

typedef struct {
    ort_api api;
    const kernel_set *kernels;
    product_weights weights; /* without its pointers */
    int64_t bytes, gated, exact;
} product_kernel;

static ort_status *create_product(const ort_operator *op, ort_api api, const void *info, void **kernel) {
    product_weights w = {0};
    (void)op;
    w.n = integer_or(api, info, "N", 0);
    w.k = integer_or(api, info, "K", 0);
    int64_t bits = integer_or(api, info, "bits", 0), group = integer_or(api, info, "group", 0);
    int64_t zeros = integer_or(api, info, "zero_points", 0), gated = integer_or(api, info, "gated", 0);
    if (w.n < 1 || w.k < 1 || w.n > (1 << 30) || w.k > (1 << 30)) REFUSE(api, "N and K must be from 1 to 2^30");
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) REFUSE(api, "bits must be 2, 3, 4 or 8");
    if (group < 16 || group > 1024 || group % (bits == 3 ? 32 : 16)) REFUSE(api, "group must be a multiple of 16, or 32 at 3 bits");
    if (gated && w.n % 32) REFUSE(api, "a gated product needs N that is a multiple of 32");
    w.bits = (int32_t)bits, w.group = (int32_t)group, w.has_zero_points = zeros != 0;
    if (tiles_of(w.n) > MOST / (groups_of(w.k, w.group) * group_bytes(w.group, w.bits, w.has_zero_points)))
        REFUSE(api, "weights that are too large");
    product_kernel *made = malloc(sizeof *made);
    if (!made) return ort_error(api, ORT_FAIL, DOMAIN ": Failed to allocate memory");
    made->api = api, made->kernels = best_kernels(), made->weights = w, made->gated = gated;
    made->exact = integer_or(api, info, "exact", 0);
    made->bytes = weight_bytes(w.n, w.k, w.group, w.bits, w.has_zero_points);
    *kernel = made;
    return NULL;
}

static void free_kernel(void *kernel) { free(kernel); }

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

static ort_status *compute_product(void *data, void *context) {
    product_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor x, w, bias;
    TRY(read_input(api, context, 0, &x));
    TRY(read_input(api, context, 1, &w));
    TRY(read_input(api, context, 2, &bias));
    product_work work = {.kernel = kernel, .weights = kernel->weights, .x = x.data};
    int64_t k = work.weights.k, n = work.weights.n, rows = x.count / k;
    if (x.rank < 1 || x.sizes[x.rank - 1] != k) REFUSE(api, "activations that do not have K channels");
    if (w.count != kernel->bytes) REFUSE(api, "weights of another size than N, K, bits and group say");
    if (bias.data && bias.count != n) REFUSE(api, "a bias of another size than N");
    x.sizes[x.rank - 1] = kernel->gated ? n / 2 : n;
    TRY(make_output(api, context, 0, x.sizes, x.rank, (void **)&work.out));
    if (!rows) return NULL;
    work.weights.tiles = w.data, work.weights.bias = bias.data;
    int64_t groups = groups_of(k, work.weights.group), padded = groups * work.weights.group;
    size_t codes = (size_t)(rows * padded), numbers = (size_t)(rows * groups) * 4;
    size_t wide = kernel->gated ? (size_t)(rows * n) * 4 : 0;
    char *scratch = malloc(codes + 2 * numbers + wide);
    if (!scratch) return ort_error(api, ORT_FAIL, DOMAIN ": Failed to allocate memory");
    work.wide = (float *)(void *)scratch;
    work.inputs = (product_inputs){(int8_t *)(scratch + wide + 2 * numbers), (float *)(void *)(scratch + wide),
                                   (int32_t *)(void *)(scratch + wide + numbers), rows, padded, groups};
    work.rows_per_task = 8;
    int64_t tile_bytes = groups * group_bytes(work.weights.group, work.weights.bits, work.weights.has_zero_points);
    int64_t tiles = tiles_of(n) / (kernel->gated ? 2 : 1);
    /* A task reads its weights once for every eight rows, so that more rows need fewer of them. */
    work.tiles_per_task = TASK_BYTES / tile_bytes / (1 + rows / 8) + 1;
    ort_status *status = NULL;
    if (kernel->exact) work.tiles_per_task = 1;
    else if (rows > work.rows_per_task)
        status = ort_parallel(api, context, quantize_task, (size_t)((rows + 7) / 8), 0, &work);
    else quantize_task(&work, 0);
    size_t tasks = (size_t)((tiles + work.tiles_per_task - 1) / work.tiles_per_task);
    if (!status) status = ort_parallel(api, context, product_task, tasks, 0, &work);
    free(scratch);
    return status;
}

/* ---- rows of a quantized table ---------------------------------------------------------------------------- */

static ort_status *compute_rows(void *data, void *context) {
    product_kernel *kernel = data;
    ort_api api = kernel->api;
    product_weights w = kernel->weights;
    tensor table, ids;
    float *out;
    TRY(read_input(api, context, 0, &table));
    TRY(read_input(api, context, 1, &ids));
    if (table.count != kernel->bytes) REFUSE(api, "a table of another size than N, K, bits and group say");
    if (ids.rank > 5) REFUSE(api, "ids of more than 5 axes");
    ids.sizes[ids.rank] = w.k;
    TRY(make_output(api, context, 0, ids.sizes, ids.rank + 1, (void **)&out));
    w.tiles = table.data;
    for (int64_t i = 0; i < ids.count; i++) {
        int64_t id = ((const int64_t *)ids.data)[i];
        if (id < 0 || id >= w.n) REFUSE(api, "an id outside the table");
        dequantize_row(&w, id, out + i * w.k);
    }
    return NULL;
}

/* ---- attention -------------------------------------------------------------------------------------------- */

typedef struct {
    ort_api api;
    const kernel_set *kernels;
    int64_t heads, kv_heads, rotary, interleaved, window, bits;
    float scale, softcap;
} attention_kernel;

static ort_status *create_attention(const ort_operator *op, ort_api api, const void *info, void **kernel) {
    attention_kernel a = {api, best_kernels(), 0, 0, 0, 0, 0, 0, 0, 0};
    (void)op;
    a.heads = integer_or(api, info, "num_heads", 0), a.kv_heads = integer_or(api, info, "kv_num_heads", 0);
    a.rotary = integer_or(api, info, "do_rotary", 0);
    a.interleaved = integer_or(api, info, "rotary_interleaved", 0);
    a.window = integer_or(api, info, "local_window_size", -1);
    a.bits = integer_or(api, info, "kv_cache_bit_width", 0);
    a.scale = number_or(api, info, "scale", 1), a.softcap = number_or(api, info, "softcap", 0);
    if (a.kv_heads < 1 || a.heads < a.kv_heads || a.heads > 1 << 16 || a.heads % a.kv_heads)
        REFUSE(api, "num_heads must be a multiple of kv_num_heads");
    attention_kernel *made = malloc(sizeof *made);
    if (!made) return ort_error(api, ORT_FAIL, DOMAIN ": Failed to allocate memory");
    *made = a;
    *kernel = made;
    return NULL;
}

typedef struct {
    const kernel_set *kernels;
    attention_job job;
    int64_t tile_floats;
    int failed; /* a task had no memory; only ever set, by any of them */
} attention_work;

static void prepare_task(void *data, size_t task) {
    attention_work *work = data;
    int64_t first = (int64_t)task * 8, last = first + 8, all = work->job.batch * work->job.seq;
    for (int64_t i = first; i < last && i < all; i++) work->kernels->prepare_token(&work->job, i);
}

static void chunk_task(void *data, size_t task) {
    attention_work *work = data;
    work->kernels->attend_chunk(&work->job, (int64_t)task);
}

static void tile_task(void *data, size_t task) {
    attention_work *work = data;
    float *scratch = malloc((size_t)work->tile_floats * 4);
    if (!scratch) {
        work->failed = 1;
        return;
    }
    work->kernels->attend_tile(&work->job, (int64_t)task, scratch);
    free(scratch);
}

static ort_status *check_attention(ort_api api, const attention_job *job, const tensor *cos, int64_t tables) {
    for (int64_t b = 0; b < job->batch; b++) {
        int64_t end = past_of(job, b) + job->seq;
        if (job->last[b] < 0 || job->last[b] >= job->capacity || end > job->capacity)
            REFUSE(api, "more tokens than the cache holds");
        if (cos->data && end > tables) REFUSE(api, "more tokens than the rope tables hold");
    }
    return NULL;
}

static ort_status *compute_attention(void *data, void *context) {
    attention_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor in[14];
    for (size_t i = 0; i < 14; i++) TRY(read_input(api, context, i, &in[i]));
    const tensor *query = &in[0], *key = &in[1], *value = &in[2], *past = &in[3], *cos = &in[7], *sin = &in[8];
    if (query->rank != 3 || past->rank != 4 || in[4].rank != 4 || in[4].count != past->count || !in[5].data || !in[6].data)
        REFUSE(api, "attention needs queries of 3 axes and caches of 4, of one size");
    attention_job job = {0};
    job.batch = query->sizes[0], job.seq = query->sizes[1], job.heads = kernel->heads, job.kv_heads = kernel->kv_heads;
    job.type = past->type == TYPE_FLOAT ? CACHE_FLOAT32 : past->type == TYPE_FLOAT16 ? CACHE_FLOAT16
             : past->type == TYPE_INT8 ? CACHE_INT8 : CACHE_INT4;
    job.dim = past->sizes[3] * (job.type == CACHE_INT4 ? 2 : 1);
    int64_t width = job.heads * job.dim, kv_width = job.kv_heads * job.dim;
    job.query = query->data, job.query_stride = query->sizes[2];
    if (key->data) {
        job.key = key->data, job.value = value->data, job.key_stride = job.value_stride = kv_width;
        if (job.query_stride != width || !value->data || key->count != job.batch * job.seq * kv_width || value->count != key->count)
            REFUSE(api, "queries, keys and values whose sizes differ from those of the cache");
    } else {
        job.key = job.query + width, job.value = job.key + kv_width;
        job.key_stride = job.value_stride = job.query_stride;
        if (job.query_stride != width + 2 * kv_width) REFUSE(api, "joint queries, keys and values of another size than the cache's");
    }
    if (job.dim < 1 || job.dim > 1024 || past->sizes[0] != job.batch || past->sizes[1] != job.kv_heads)
        REFUSE(api, "a cache that does not fit the queries");
    if (in[5].count != job.batch || in[5].type != TYPE_INT32 || in[6].count < 1) REFUSE(api, "one length for each sequence is needed");
    int64_t total = *(const int32_t *)in[6].data;
    job.last = in[5].data;
    job.capacity = past->sizes[2] > total ? past->sizes[2] : total;
    if (kernel->rotary) {
        if (!cos->data || !sin->data || cos->rank != 2 || cos->count != sin->count || 2 * cos->sizes[1] > job.dim)
            REFUSE(api, "rope tables that do not fit");
        job.cosines = cos->data, job.sines = sin->data, job.rotated = 2 * cos->sizes[1];
    }
    if (in[11].data && in[11].count != job.heads) REFUSE(api, "one sink for each head is needed");
    job.sinks = in[11].data;
    job.key_scale = in[12].data, job.value_scale = in[13].data, job.key_scale_count = in[12].count;
    if (job.type >= CACHE_INT8 && (!job.key_scale || !job.value_scale || in[12].count != in[13].count ||
                                   (in[12].count != 1 && in[12].count != kv_width)))
        REFUSE(api, "codes without the scales they need");
    job.window = kernel->window > 0 ? kernel->window : 0, job.scale = kernel->scale, job.softcap = kernel->softcap;
    job.interleaved = (int32_t)kernel->interleaved;
    TRY(check_attention(api, &job, cos, kernel->rotary ? cos->sizes[0] : 0));

    int64_t out_sizes[3] = {job.batch, job.seq, width};
    int64_t cache_sizes[4] = {job.batch, job.kv_heads, job.capacity, past->sizes[3]};
    TRY(make_output(api, context, 0, out_sizes, 3, (void **)&job.out));
    TRY(make_output(api, context, 1, cache_sizes, 4, &job.keys));
    TRY(make_output(api, context, 2, cache_sizes, 4, &job.values));
    int64_t size = row_bytes(job.type, job.dim);
    for (int which = 0; which < 2; which++) {
        char *into = which ? job.values : job.keys;
        const char *from = in[3 + which].data;
        if (into == from) continue;
        if (past->sizes[2] % 16 && past->sizes[2] != job.capacity) REFUSE(api, "a cache that grows must hold a multiple of 16 tokens");
        for (int64_t row = 0; row < job.batch * job.kv_heads; row++)
            memcpy(into + row * job.capacity * size, from + row * past->sizes[2] * size, (size_t)(past->sizes[2] * size));
    }
    if (!job.batch || !job.seq) return NULL;
    int single = job.seq < 8;
    int64_t longest = 0;
    for (int64_t b = 0; b < job.batch; b++)
        if (past_of(&job, b) + job.seq > longest) longest = past_of(&job, b) + job.seq;
    job.chunks = (longest + CHUNK - 1) / CHUNK;
    int64_t rows = job.batch * job.seq, tasks = rows * job.kv_heads * job.chunks;
    size_t query_floats = (size_t)(rows * width);
    size_t partial = single ? (size_t)(tasks * (job.heads / job.kv_heads) * (job.dim + 2)) : 0;
    attention_work work = {.kernels = kernel->kernels};
    char *scratch = malloc((query_floats + partial) * 4);
    if (!scratch) return ort_error(api, ORT_FAIL, DOMAIN ": Failed to allocate memory");
    job.rotated_queries = (float *)(void *)scratch, job.partial = job.rotated_queries + query_floats;
    work.job = job;
    work.tile_floats = (2 * QUERIES + 2 * CHUNK) * job.dim + CHUNK * QUERIES;
    ort_status *status = NULL;
    if (rows > 8) status = ort_parallel(api, context, prepare_task, (size_t)((rows + 7) / 8), 0, &work);
    else prepare_task(&work, 0);
    if (!status && single) {
        if (tasks > 1) status = ort_parallel(api, context, chunk_task, (size_t)tasks, 0, &work);
        else chunk_task(&work, 0);
        for (int64_t row = 0; !status && row < rows; row++)
            for (int64_t head = 0; head < job.heads; head++) kernel->kernels->join_chunks(&work.job, row, head);
    } else if (!status) {
        int64_t tiles = (job.seq + QUERIES - 1) / QUERIES;
        status = ort_parallel(api, context, tile_task, (size_t)(tiles * job.heads * job.batch), 0, &work);
        if (!status && work.failed) status = ort_error(api, ORT_FAIL, DOMAIN ": Failed to allocate memory");
    }
    free(scratch);
    return status;
}

/* ---- what ONNX Runtime asks about each -------------------------------------------------------------------- */

typedef struct {
    ort_operator op;
    const char *name;
    const int *inputs; /* types, negative for one that may be left out, ended by 99 */
    int outputs[3];
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
static const int ROWS[] = {TYPE_UINT8, TYPE_INT64, 99};
#define ATTENTION(name, type) \
    static const int name[] = {TYPE_FLOAT, -TYPE_FLOAT, -TYPE_FLOAT, type, type, TYPE_INT32, TYPE_INT32, -TYPE_FLOAT, \
                               -TYPE_FLOAT, -TYPE_INT64, -TYPE_FLOAT, -TYPE_FLOAT, -TYPE_FLOAT, -TYPE_FLOAT, 99}
ATTENTION(OVER_FLOATS, TYPE_FLOAT);
ATTENTION(OVER_HALVES, TYPE_FLOAT16);
ATTENTION(OVER_BYTES, TYPE_INT8);
ATTENTION(OVER_PAIRS, TYPE_UINT8);

#define OPERATOR(create, compute) \
    {ORT_INTERFACE, NULL, name_of, cpu, input_type, input_count, output_type, output_count, NULL, free_kernel, input_kind, \
     output_kind, default_memory, one, one, one, one, create, compute, NULL, one, any_version, NULL, NULL, NULL, NULL}

static const described OPERATORS[] = {
    {OPERATOR(create_product, compute_product), "QuantizedProduct", PRODUCT, {TYPE_FLOAT}, 1},
    {OPERATOR(create_product, compute_rows), "QuantizedRows", ROWS, {TYPE_FLOAT}, 1},
    {OPERATOR(create_attention, compute_attention), "CachedAttention", OVER_FLOATS, {TYPE_FLOAT, TYPE_FLOAT, TYPE_FLOAT}, 3},
    {OPERATOR(create_attention, compute_attention), "CachedAttention16", OVER_HALVES, {TYPE_FLOAT, TYPE_FLOAT16, TYPE_FLOAT16}, 3},
    {OPERATOR(create_attention, compute_attention), "CachedAttention8", OVER_BYTES, {TYPE_FLOAT, TYPE_INT8, TYPE_INT8}, 3},
    {OPERATOR(create_attention, compute_attention), "CachedAttention4", OVER_PAIRS, {TYPE_FLOAT, TYPE_UINT8, TYPE_UINT8}, 3},
};

#if defined(_WIN32)
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
ort_status *RegisterCustomOps(void *options, const ort_base *base) {
    ort_api api = base->get_api(ORT_INTERFACE);
    void *domain;
    TRY(ort_new_domain(api, DOMAIN, &domain));
    for (size_t i = 0; i < sizeof OPERATORS / sizeof *OPERATORS; i++) TRY(ort_add_operator(api, domain, &OPERATORS[i].op));
    return ort_add_domain(api, options, domain);
}
