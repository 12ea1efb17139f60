/* Runs recorded cases of the operators without ONNX Runtime: replay CASES LIBRARY [THREADS].
 *
 * It loads the library, plays ONNX Runtime's part of the interface that the operators use, and holds every output
 * against the recorded one, bit for bit. So the operators can be run where ONNX Runtime is not: on an emulated
 * processor, and under a sanitizer that would see ONNX Runtime's own threads. With THREADS above 1 tasks are divided
 * among so many threads, and every case runs twice at a time with one kernel.
 *
 * A case is a line "case OPERATOR ATTRIBUTES INPUTS OUTPUTS", OUTPUTS being -1 where the operator must refuse, and
 * then a line for each attribute, "i NAME VALUE" or "f NAME VALUE", and each tensor, "t TYPE RANK SIZES…" and its
 * bytes on the next; type 0 is an input that was left out.
 */
#include "../../../runtime/kernels/src/ort_interface.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define MOST_TENSORS 32
#define MOST_AXES 16
#define MOST_OPERATORS 64

typedef struct { int type; size_t rank; int64_t sizes[MOST_AXES]; size_t bytes; void *data; } value;
typedef struct { char kind, name[64]; int64_t integer; float number; } attribute;
typedef struct {
    char name[64];
    int attribute_count, input_count, output_count;
    attribute attributes[32];
    value inputs[MOST_TENSORS], outputs[MOST_TENSORS];
} test_case;
typedef struct { const test_case *what; value outputs[MOST_TENSORS]; } call;
struct ort_status { char text[256]; };

static const ort_operator *operators[MOST_OPERATORS];
static size_t operator_count;
static int threads = 1;

static void stop(const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    vfprintf(stderr, format, rest);
    va_end(rest);
    fputc('\n', stderr);
    exit(2);
}

static void *reserved(size_t bytes) {
    void *made = malloc(bytes ? bytes : 1);
    if (!made) stop("no memory for %zu bytes", bytes);
    return made;
}

static size_t width(int type) {
    switch (type) {
    case TYPE_FLOAT: case TYPE_INT32: return 4;
    case TYPE_UINT8: case TYPE_INT8: return 1;
    case TYPE_INT64: return 8;
    case TYPE_FLOAT16: return 2;
    default: stop("a tensor of type %d", type); return 0;
    }
}

static void reserve_value(value *v) {
    v->bytes = width(v->type);
    for (size_t i = 0; i < v->rank; i++) v->bytes *= (size_t)v->sizes[i];
    v->data = reserved(v->bytes);
}

/* ONNX Runtime's part. */
static ort_status *new_status(int code, const char *text) {
    ort_status *status = reserved(sizeof *status);
    (void)code;
    snprintf(status->text, sizeof status->text, "%s", text);
    return status;
}
static void free_status(ort_status *status) { free(status); }
static ort_status *new_domain(const char *name, void **into) { *into = (void *)(uintptr_t)name; return NULL; }
static ort_status *add_operator(void *domain, const void *op) {
    (void)domain;
    if (operator_count == MOST_OPERATORS) stop("more than %d operators", MOST_OPERATORS);
    operators[operator_count++] = op;
    return NULL;
}
static ort_status *add_domain(void *options, void *domain) { (void)options, (void)domain; return NULL; }
static ort_status *data_of(void *v, void **into) { *into = ((value *)v)->data; return NULL; }
static ort_status *shape_of(const void *v, void **into) { *into = (void *)(uintptr_t)v; return NULL; }
static ort_status *type_of(const void *v, int *into) { *into = ((const value *)v)->type; return NULL; }
static ort_status *rank_of(const void *v, size_t *into) { *into = ((const value *)v)->rank; return NULL; }
static ort_status *sizes_of(const void *v, int64_t *into, size_t count) {
    memcpy(into, ((const value *)v)->sizes, count * sizeof *into);
    return NULL;
}
static void free_shape(void *v) { (void)v; }
static const attribute *attribute_of(const test_case *what, char kind, const char *name) {
    for (int i = 0; i < what->attribute_count; i++)
        if (what->attributes[i].kind == kind && !strcmp(what->attributes[i].name, name)) return &what->attributes[i];
    return NULL;
}
static ort_status *number_of(const void *what, const char *name, float *into) {
    const attribute *found = attribute_of(what, 'f', name);
    if (!found) return new_status(ORT_FAIL, "no such attribute");
    *into = found->number;
    return NULL;
}
static ort_status *integer_of(const void *what, const char *name, int64_t *into) {
    const attribute *found = attribute_of(what, 'i', name);
    if (!found) return new_status(ORT_FAIL, "no such attribute");
    *into = found->integer;
    return NULL;
}
static ort_status *input_count(const void *context, size_t *into) {
    *into = (size_t)((const call *)context)->what->input_count;
    return NULL;
}
static ort_status *input(const void *context, size_t index, const void **into) {
    const value *v = &((const call *)context)->what->inputs[index];
    *into = v->type ? v : NULL;
    return NULL;
}
static ort_status *output(void *context, size_t index, const int64_t *sizes, size_t rank, void **into) {
    call *c = context;
    value *v = &c->outputs[index];
    v->type = c->what->outputs[index].type, v->rank = rank;
    if (!v->type) v->type = TYPE_FLOAT; /* of a case that is to be refused */
    memcpy(v->sizes, sizes, rank * sizeof *sizes);
    reserve_value(v);
    *into = v;
    return NULL;
}

/* No task may leave tiles of AMX behind: every later change of threads would save them. */
static void look_for_tiles(void) {
#if defined(__x86_64__)
    unsigned a = 0, b, c, d;
    if (!__get_cpuid_count(0xd, 1, &a, &b, &c, &d) || !(a >> 2 & 1)) return;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(1));
    if (a >> 17 & 3) stop("a task left tiles behind");
#endif
}

typedef struct { void (*task)(void *, size_t); void *data; size_t count, next; pthread_mutex_t lock; } work;
static void *worker(void *data) {
    work *w = data;
    for (;;) {
        pthread_mutex_lock(&w->lock);
        size_t mine = w->next++;
        pthread_mutex_unlock(&w->lock);
        if (mine >= w->count) return NULL;
        w->task(w->data, mine);
        look_for_tiles();
    }
}
static ort_status *parallel(const void *context, void (*task)(void *, size_t), size_t count, size_t batches, void *data) {
    work w = {task, data, count, 0, PTHREAD_MUTEX_INITIALIZER};
    pthread_t ids[64];
    (void)context, (void)batches;
    for (int i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, worker, &w)) stop("no thread");
    worker(&w);
    for (int i = 1; i < threads; i++) pthread_join(ids[i], NULL);
    return NULL;
}

static void missing(void) { stop("the operators use a place of the interface that replay.c does not play"); }
static void *table[512];
static ort_api get_api(uint32_t version) { (void)version; return table; }
#define PLAY(place, function) table[place] = (void *)(uintptr_t)function
static void fill_table(void) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) PLAY(i, missing);
    PLAY(0, new_status), PLAY(26, new_domain), PLAY(27, add_operator), PLAY(28, add_domain), PLAY(51, data_of);
    PLAY(60, type_of), PLAY(61, rank_of), PLAY(62, sizes_of), PLAY(65, shape_of), PLAY(85, number_of);
    PLAY(86, integer_of), PLAY(88, input_count), PLAY(90, input), PLAY(91, output), PLAY(93, free_status);
    PLAY(99, free_shape), PLAY(274, parallel);
}

static value read_value(FILE *file) {
    value v = {0};
    if (fscanf(file, " t %d %zu", &v.type, &v.rank) != 2 || v.rank > MOST_AXES) stop("a case that ends early");
    for (size_t i = 0; i < v.rank; i++)
        if (fscanf(file, "%" SCNd64, &v.sizes[i]) != 1) stop("a case that ends early");
    for (int c = 0; c != '\n' && c != EOF;) c = fgetc(file);
    if (!v.type) return v;
    reserve_value(&v);
    if (fread(v.data, 1, v.bytes, file) != v.bytes) stop("a case that ends early");
    return v;
}

static int read_case(FILE *file, test_case *into) {
    memset(into, 0, sizeof *into);
    if (fscanf(file, " case %63s %d %d %d", into->name, &into->attribute_count, &into->input_count, &into->output_count) != 4)
        return 0;
    for (int i = 0; i < into->attribute_count; i++) {
        attribute *a = &into->attributes[i];
        if (fscanf(file, " %c %63s", &a->kind, a->name) != 2) stop("a case that ends early");
        int found = a->kind == 'i' ? fscanf(file, "%" SCNd64, &a->integer) : fscanf(file, "%f", &a->number);
        if (found != 1) stop("a case that ends early");
    }
    for (int i = 0; i < into->input_count; i++) into->inputs[i] = read_value(file);
    for (int i = 0; i < into->output_count; i++) into->outputs[i] = read_value(file);
    return 1;
}

/* The same bits; of what is no number, that it is none: processors differ in the sign and the rest of those. */
static int same(const value *found, const value *expected) {
    if (found->rank != expected->rank || memcmp(found->sizes, expected->sizes, found->rank * sizeof *found->sizes)) return 0;
    if (!memcmp(found->data, expected->data, found->bytes)) return 1;
    if (found->type != TYPE_FLOAT) return 0;
    const float *ours = found->data, *theirs = expected->data;
    for (size_t i = 0; i < found->bytes / 4; i++)
        if (memcmp(ours + i, theirs + i, 4) && !(isnan(ours[i]) && isnan(theirs[i]))) return 0;
    return 1;
}

typedef struct { const test_case *what; const ort_operator *op; void *kernel; int good; } attempt;
static void *run(void *data) {
    attempt *a = data;
    call c = {.what = a->what};
    ort_status *status = a->op->compute_checked(a->kernel, &c);
    a->good = (status != NULL) == (a->what->output_count < 0);
    if (status && !a->good) fprintf(stderr, "%s\n", status->text);
    for (int i = 0; i < a->what->output_count && a->good; i++) a->good = same(&c.outputs[i], &a->what->outputs[i]);
    for (int i = 0; i < MOST_TENSORS; i++) free(c.outputs[i].data);
    free(status);
    return NULL;
}

static int replay(const test_case *what) {
    const ort_operator *op = NULL;
    for (size_t i = 0; i < operator_count; i++)
        if (!strcmp(operators[i]->name(operators[i]), what->name)) op = operators[i];
    if (!op) stop("no operator is called %s", what->name);
    void *kernel = NULL;
    ort_status *status = op->create_checked(op, table, what, &kernel);
    if (status) {
        free(status);
        return what->output_count < 0;
    }
    attempt here = {what, op, kernel, 0}, there = here;
    pthread_t other;
    if (threads > 1 && pthread_create(&other, NULL, run, &there)) stop("no thread");
    run(&here);
    if (threads > 1) pthread_join(other, NULL);
    op->destroy(kernel);
    return here.good && (threads == 1 || there.good);
}

int main(int count, char **arguments) {
    if (count < 3) stop("replay CASES LIBRARY [THREADS]");
    if (count > 3) threads = atoi(arguments[3]);
    if (threads < 1 || threads > 64) stop("from 1 to 64 threads");
    FILE *file = fopen(arguments[1], "rb");
    void *library = dlopen(arguments[2], RTLD_NOW);
    if (!file || !library) stop("%s or %s cannot be opened: %s", arguments[1], arguments[2], library ? "" : dlerror());
    ort_status *(*register_operators)(void *, const ort_base *) = (ort_status * (*)(void *, const ort_base *))dlsym(library, "RegisterCustomOps");
    const char *(*instructions)(void) = (const char *(*)(void))dlsym(library, "edgepress_kernels");
    if (!register_operators || !instructions) stop("%s is not the library of operators", arguments[2]);
    fill_table();
    const ort_base base = {get_api, NULL};
    if (register_operators(NULL, &base)) stop("the operators could not be registered");
    test_case *what = reserved(sizeof *what);
    int total = 0, bad = 0;
    while (read_case(file, what)) {
        total++;
        if (!replay(what)) bad++, fprintf(stderr, "case %d, %s: another result\n", total, what->name);
        for (int i = 0; i < MOST_TENSORS; i++) free(what->inputs[i].data), free(what->outputs[i].data);
    }
    free(what);
    fclose(file);
    printf("%s, %d thread%s: %d of %d cases give the recorded bits\n", instructions(), threads, threads > 1 ? "s" : "", total - bad, total);
    return bad || !total;
}
