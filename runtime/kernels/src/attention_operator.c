/* Attention over a cache, as ONNX Runtime calls it: sizes are checked against the tensors that came before a pointer
 * is made, and work is divided into tasks whose results do not depend on the thread that does them.
 */
#include "product.h"
#include "tensors.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    ort_api api;
    const kernel_set *kernels;
    int64_t heads, kv_heads, rotary, interleaved, window, bits;
    float scale, softcap;
} attention_kernel;

ort_status *create_attention(const ort_operator *op, ort_api api, const void *info, void **kernel) {
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
    if (!made) return NO_MEMORY(api);
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

ort_status *compute_attention(void *data, void *context) {
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
    if (in[10].data && in[10].count != job.heads) REFUSE(api, "one slope for each head is needed");
    if (in[11].data && in[11].count != job.heads) REFUSE(api, "one sink for each head is needed");
    job.slopes = in[10].data, job.sinks = in[11].data;
    job.key_scale = in[12].data, job.value_scale = in[13].data, job.key_scale_count = in[12].count;
    if ((job.type >= CACHE_INT8 || job.key_scale || job.value_scale) &&
        (!job.key_scale || !job.value_scale || in[12].count != in[13].count || (in[12].count != 1 && in[12].count != kv_width)))
        REFUSE(api, "codes without the scales they need");
    job.window = kernel->window > 0 ? kernel->window : 0, job.scale = kernel->scale, job.softcap = kernel->softcap;
    job.interleaved = (int32_t)kernel->interleaved;
    TRY(check_attention(api, &job, cos, kernel->rotary ? cos->sizes[0] : 0));
    int64_t longest = 0;
    for (int64_t b = 0; b < job.batch; b++)
        if (past_of(&job, b) + job.seq > longest) longest = past_of(&job, b) + job.seq;
    if (job.capacity > past->sizes[2] && job.capacity > longest) REFUSE(api, "a cache that grows further than its tokens");

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
        int64_t held = past->sizes[2] * size, rest = job.capacity * size - held;
        for (int64_t row = 0; row < job.batch * job.kv_heads; row++) {
            if (held) memcpy(into + row * job.capacity * size, from + row * held, (size_t)held);
            memset(into + row * job.capacity * size + held, 0, (size_t)rest);
        }
    }
    if (!job.batch || !job.seq) return NULL;
    int single = job.seq < 8;
    job.chunks = (longest + CHUNK - 1) / CHUNK;
    int64_t rows = job.batch * job.seq, tasks = rows * job.kv_heads * job.chunks;
    size_t query_floats = (size_t)(rows * width);
    size_t partial = single ? (size_t)(tasks * (job.heads / job.kv_heads) * part_floats(job.dim)) : 0;
    attention_work work = {.kernels = kernel->kernels};
    char *scratch = malloc((query_floats + partial) * 4);
    if (!scratch) return NO_MEMORY(api);
    job.rotated_queries = (float *)(void *)scratch, job.partial = job.rotated_queries + query_floats;
    work.job = job;
    work.tile_floats = work.kernels->tile_scratch(&job);
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
        status = ort_parallel(api, context, tile_task, (size_t)(tiles * job.kv_heads * job.batch), 0, &work);
        if (!status && work.failed) status = NO_MEMORY(api);
    }
    free(scratch);
    return status;
}
