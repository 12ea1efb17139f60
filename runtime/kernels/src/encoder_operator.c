/* What an encoder needs around its products: the tokens of a batch packed without padding, attention over them,
 * and the way back to a padded batch or to a vector for each text.
 */
#include "product.h"
#include "tensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ort_api api;
    const encoder_kernels *kernels;
    int64_t heads, position_offset, first, unit, exact;
    float scale, epsilon;
} encoder_kernel;

ort_status *create_encoder(const ort_operator *op, ort_api api, const void *info, void **kernel) {
    int64_t position_offset = integer_or(api, info, "position_offset", 0);
    (void)op;
    if (position_offset < 0 || position_offset > 1 << 30) REFUSE(api, "position_offset must be from 0 to 2^30");
    encoder_kernel *made = malloc(sizeof *made);
    if (!made) return NO_MEMORY(api);
    *made = (encoder_kernel){api, &best_kernels()->encoder, integer_or(api, info, "num_heads", 1),
                             position_offset, integer_or(api, info, "first", 0),
                             integer_or(api, info, "unit", 0), integer_or(api, info, "exact", 1),
                             number_or(api, info, "scale", 1),
                             number_or(api, info, "epsilon", 0)};
    *kernel = made;
    return NULL;
}

static ort_status *check_offsets(ort_api api, const tensor *offsets, int64_t tokens) {
    const int64_t *at = offsets->data;
    if (offsets->count < 1 || at[0] != 0 || at[offsets->count - 1] != tokens) REFUSE(api, "offsets that do not fit the tokens");
    for (int64_t i = 1; i < offsets->count; i++)
        if (at[i] < at[i - 1]) REFUSE(api, "offsets that fall");
    return NULL;
}

/* ids, positions and types [tokens] and offsets [batch + 1] of ids, mask and types [batch, seq]. A position is the
 * column; with an offset, tokens other than padding (the id before the offset) are counted from there, as RoBERTa
 * does. */
ort_status *compute_pack(void *data, void *context) {
    encoder_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor ids, mask, types;
    TRY(read_input(api, context, 0, &ids));
    TRY(read_input(api, context, 1, &mask));
    TRY(read_input(api, context, 2, &types));
    if (ids.rank != 2 || mask.rank != 2 || mask.sizes[0] != ids.sizes[0] || mask.sizes[1] != ids.sizes[1] ||
        (types.data && types.count != ids.count))
        REFUSE(api, "ids, mask and types of different sizes");
    const int64_t *id = ids.data, *kept = mask.data, *type = types.data;
    int64_t batch = ids.sizes[0], seq = ids.sizes[1], tokens = 0, ends = batch + 1, *out[4];
    for (int64_t i = 0; i < mask.count; i++) tokens += kept[i] != 0;
    for (size_t i = 0; i < 3; i++) TRY(make_output(api, context, i, &tokens, 1, (void **)&out[i]));
    TRY(make_output(api, context, 3, &ends, 1, (void **)&out[3]));
    int64_t at = 0, padding = kernel->position_offset - 1;
    for (int64_t b = 0; b < batch; b++) {
        int64_t counted = padding;
        out[3][b] = at;
        for (int64_t i = b * seq; i < (b + 1) * seq; i++) {
            counted += id[i] != padding;
            if (!kept[i]) continue;
            out[0][at] = id[i];
            out[1][at] = !kernel->position_offset ? i - b * seq : id[i] == padding ? padding : counted;
            out[2][at++] = type ? type[i] : 0;
        }
    }
    out[3][batch] = at;
    return NULL;
}

/* States [batch, seq, hidden] of packed rows [tokens, hidden]; those of padding are zero. */
ort_status *compute_unpack(void *data, void *context) {
    ort_api api = ((encoder_kernel *)data)->api;
    tensor rows, mask;
    TRY(read_input(api, context, 0, &rows));
    TRY(read_input(api, context, 1, &mask));
    if (rows.rank != 2 || mask.rank != 2) REFUSE(api, "rows and a mask of 2 axes are needed");
    const int64_t *kept = mask.data;
    int64_t sizes[3] = {mask.sizes[0], mask.sizes[1], rows.sizes[1]}, tokens = 0;
    size_t bytes = (size_t)rows.sizes[1] * 4;
    for (int64_t i = 0; i < mask.count; i++) tokens += kept[i] != 0;
    if (tokens != rows.sizes[0]) REFUSE(api, "a mask of another number of tokens");
    char *out;
    const char *from = rows.data;
    TRY(make_output(api, context, 0, sizes, 3, (void **)&out));
    if (!bytes) return NULL;
    for (int64_t i = 0; i < mask.count; i++, out += bytes) {
        if (kept[i]) memcpy(out, from, bytes), from += bytes;
        else memset(out, 0, bytes);
    }
    return NULL;
}

/* Packed rows [tokens, width], and where each text begins among them. */
static ort_status *read_packed(ort_api api, void *context, tensor *rows, tensor *offsets) {
    TRY(read_input(api, context, 0, rows));
    TRY(read_input(api, context, 1, offsets));
    if (rows->rank != 2) REFUSE(api, "rows of 2 axes are needed");
    return check_offsets(api, offsets, rows->sizes[0]);
}

/* The mean of the rows of each text, or its first one; divided by its length where it is to be a unit vector. A
 * text without tokens is zero. */
ort_status *compute_pool(void *data, void *context) {
    encoder_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor rows, offsets;
    TRY(read_packed(api, context, &rows, &offsets));
    const int64_t *at = offsets.data;
    int64_t batch = offsets.count - 1, width = rows.sizes[1], sizes[2] = {batch, width};
    float *out;
    TRY(make_output(api, context, 0, sizes, 2, (void **)&out));
    for (int64_t b = 0; b < batch; b++, out += width) {
        int64_t count = at[b + 1] - at[b];
        const float *row = (const float *)rows.data + at[b] * width;
        float squares = 0;
        for (int64_t i = 0; i < width; i++) out[i] = count ? row[i] : 0;
        for (int64_t t = 1; t < count && !kernel->first; t++) kernel->kernels->add(row + t * width, width, out);
        for (int64_t i = 0; i < width && count > 1 && !kernel->first; i++) out[i] /= (float)count;
        if (!kernel->unit) continue;
        for (int64_t i = 0; i < width; i++) squares = fmaf(out[i], out[i], squares);
        float length = sqrtf(squares) > 1e-12f ? sqrtf(squares) : 1e-12f;
        for (int64_t i = 0; i < width; i++) out[i] /= length;
    }
    return NULL;
}

typedef struct {
    const encoder_kernel *kernel;
    layer_norm norm;
    const int64_t *ids, *positions, *types;
    const uint8_t *codes, *zeros;
    const float *scales, *position_rows, *type_rows;
    float *out;
    int64_t tokens, groups, group;
} embedding_work;

static void embedding_task(void *data, size_t task) {
    embedding_work *work = data;
    const encoder_kernels *kernels = work->kernel->kernels;
    int64_t width = work->norm.width, token = (int64_t)task * 32;
    for (int64_t end = token + 32; token < end && token < work->tokens; token++) {
        int64_t id = work->ids[token], ahead = work->ids[token + 4 < work->tokens ? token + 4 : token];
        float *out = work->out + token * width;
        for (int64_t at = 0; at < width; at += 64) __builtin_prefetch(work->codes + ahead * width + at);
        __builtin_prefetch(work->scales + ahead * work->groups);
        kernels->dequantize(work->codes + id * width, work->scales + id * work->groups,
                            work->zeros ? work->zeros + id * work->groups : NULL, width, work->group, out);
        kernels->normalize(&work->norm, out, work->position_rows + work->positions[token] * width,
                           work->type_rows ? work->type_rows + work->types[token] * width : NULL, out);
    }
}

static ort_status *check_rows(ort_api api, const tensor *indices, int64_t tokens, int64_t rows) {
    if (indices->count != tokens) REFUSE(api, "ids, positions and types of different sizes");
    for (int64_t i = 0; i < tokens; i++)
        if (((const int64_t *)indices->data)[i] < 0 || ((const int64_t *)indices->data)[i] >= rows)
            REFUSE(api, "an id outside its table");
    return NULL;
}

/* The norm of the sum of a token's embedding (8-bit codes), its position's and its type's. */
ort_status *compute_embeddings(void *data, void *context) {
    encoder_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor in[10]; /* scale and bias of the norm, ids, positions, types, codes, scales, table of positions, of types, zeros */
    for (size_t i = 0; i < 10; i++) TRY(read_input(api, context, i, &in[i]));
    const tensor *codes = &in[5], *scales = &in[6], *zeros = &in[9];
    int64_t width = in[0].count, tokens = in[2].count;
    if (codes->rank != 2 || scales->rank != 2 || in[7].rank != 2 || width < 1 || in[1].count != width ||
        codes->sizes[1] != width || in[7].sizes[1] != width || scales->sizes[0] != codes->sizes[0])
        REFUSE(api, "tables of different sizes");
    int64_t groups = scales->sizes[1];
    if (groups < 1 || width % groups || (zeros->data && zeros->count != scales->count)) REFUSE(api, "groups that do not fit");
    TRY(check_rows(api, &in[2], tokens, codes->sizes[0]));
    TRY(check_rows(api, &in[3], tokens, in[7].sizes[0]));
    if (in[8].data) {
        if (in[8].rank != 2 || in[8].sizes[1] != width) REFUSE(api, "tables of different sizes");
        TRY(check_rows(api, &in[4], tokens, in[8].sizes[0]));
    }
    embedding_work work = {kernel, {in[0].data, in[1].data, width, kernel->epsilon}, in[2].data, in[3].data, in[4].data,
                           codes->data, zeros->data, scales->data, in[7].data, in[8].data, NULL, tokens, groups, width / groups};
    int64_t sizes[2] = {tokens, width};
    TRY(make_output(api, context, 0, sizes, 2, (void **)&work.out));
    if (!tokens) return NULL;
    return ort_parallel(api, context, embedding_task, (size_t)((tokens + 31) / 32), 0, &work);
}

typedef struct {
    const encoder_kernel *kernel;
    encoder_attention job;
    int failed; /* a task had no memory; only ever set, by any of them */
} attention_work;

static void attention_task(void *data, size_t task) {
    attention_work *work = data;
    int64_t sequence = (int64_t)task / work->job.heads, head = (int64_t)task % work->job.heads;
    int64_t tokens = work->job.offsets[sequence + 1] - work->job.offsets[sequence];
    const encoder_kernels *kernels = work->kernel->kernels;
    if (!tokens) return;
    float *scratch = malloc((size_t)attention_floats(tokens, work->job.dim) * 4);
    if (!scratch) {
        work->failed = 1;
        return;
    }
    int in_floats = work->kernel->exact || tokens <= FEW_TOKENS;
    (in_floats ? kernels->attend : kernels->attend_pairs)(&work->job, sequence, head, scratch);
    free(scratch);
}

ort_status *compute_encoder_attention(void *data, void *context) {
    encoder_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor rows, offsets;
    TRY(read_packed(api, context, &rows, &offsets));
    int64_t heads = kernel->heads, width = rows.sizes[1] / 3, sizes[2] = {rows.sizes[0], width};
    if (heads < 1 || width < 1 || rows.sizes[1] != 3 * width || width % heads || width / heads > 1024)
        REFUSE(api, "queries, keys and values that are not of num_heads heads");
    attention_work work = {.kernel = kernel, .job = {rows.data, offsets.data, NULL, heads, width / heads, kernel->scale}};
    TRY(make_output(api, context, 0, sizes, 2, (void **)&work.job.out));
    if (!rows.sizes[0]) return NULL;
    ort_status *status = ort_parallel(api, context, attention_task, (size_t)((offsets.count - 1) * heads), 0, &work);
    return !status && work.failed ? NO_MEMORY(api) : status;
}
