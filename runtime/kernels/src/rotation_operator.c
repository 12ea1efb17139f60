/* The rotation of inputs as ONNX Runtime calls it: what follows from their number is made once. */
#include "product.h"
#include "tensors.h"

#include <math.h>
#include <stdlib.h>

/* Rows that one task rotates. */
#define TASK_ROWS 8
#define LARGEST_INPUT ((int64_t)1 << 20)

static const uint32_t PALEY_12[] = {
    0x000, 0x475, 0x8e9, 0x1d3, 0x3a5, 0x749, 0xe91, 0xd23, 0xa47, 0x48f, 0x91d, 0x23b,
};
static const uint32_t PALEY_20[] = {
    0x00000, 0x615e5, 0xc2bc9, 0x85793, 0x0af27, 0x15e4d, 0x2bc99, 0x57931, 0xaf261, 0x5e4c3,
    0xbc985, 0x7930b, 0xf2615, 0xe4c2b, 0xc9857, 0x930af, 0x2615f, 0x4c2bd, 0x98579, 0x30af3,
};
static const uint32_t PALEY_28[] = {
    0x0000002, 0xaaaaaab, 0x30ff0c8, 0x9a55a6e, 0xc3fc320, 0x69569ba, 0x0ff0c8c, 0xa55a6e6, 0x3fc3230, 0x9569b9a,
    0xff0c8c0, 0x55a6e6a, 0xfc3230c, 0x569b9a6, 0xf0c8c3c, 0x5a6e696, 0xc3230fc, 0x69b9a56, 0x0c8c3fc, 0xa6e6956,
    0x3230ff0, 0x9b9a55a, 0xc8c3fc0, 0x6e6956a, 0x230ff0c, 0xb9a55a6, 0x8c3fc30, 0xe69569a,
};

const uint32_t *paley_rows(int32_t order) { return order == 12 ? PALEY_12 : order == 20 ? PALEY_20 : PALEY_28; }

typedef struct {
    ort_api api;
    const kernel_set *kernels;
    input_rotation rotation;
    float signs[];
} rotation_kernel;

static input_rotation factors_of(int64_t size) {
    static const struct { int32_t prime, order; } KNOWN[] = {{7, 28}, {5, 20}, {3, 12}};
    input_rotation of = {.size = size, .blocks = size, .power = size & -size};
    int64_t spread = of.power;
    of.blocks /= of.power;
    for (int i = 0; i < 3; i++)
        for (; of.blocks % KNOWN[i].prime == 0 && of.power >= 4; of.blocks /= KNOWN[i].prime, of.power /= 4) {
            of.orders[of.count++] = KNOWN[i].order;
            spread *= KNOWN[i].prime;
        }
    of.scale = 1.0f / sqrtf((float)spread);
    return of;
}

/* The top bit of splitmix64 (Steele et al. 2014), seeded by the number of inputs. */
static float sign_of(int64_t size, int64_t i) {
    uint64_t mixed = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u + (uint64_t)size;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    return (mixed ^ mixed >> 31) >> 63 ? -1.0f : 1.0f;
}

ort_status *create_rotation(const ort_operator *op, ort_api api, const void *info, void **kernel) {
    int64_t size = integer_or(api, info, "K", 0);
    (void)op;
    if (size < 1 || size > LARGEST_INPUT) REFUSE(api, "K must be from 1 to 2^20");
    rotation_kernel *made = malloc(sizeof *made + (size_t)size * 4);
    if (!made) return NO_MEMORY(api);
    made->api = api, made->kernels = best_kernels(), made->rotation = factors_of(size);
    for (int64_t i = 0; i < size; i++) made->signs[i] = sign_of(size, i);
    made->rotation.signs = made->signs;
    *kernel = made;
    return NULL;
}

typedef struct {
    const rotation_kernel *kernel;
    const float *x;
    float *out, *room;
    int64_t rows;
} rotation_work;

static void rotation_task(void *data, size_t task) {
    rotation_work *work = data;
    const input_rotation *of = &work->kernel->rotation;
    int64_t row = (int64_t)task * TASK_ROWS;
    for (int64_t end = row + TASK_ROWS; row < end && row < work->rows; row++)
        work->kernel->kernels->rotate_inputs(of, work->x + row * of->size, work->out + row * of->size,
                                      work->room + (int64_t)task * of->size);
}

ort_status *compute_rotation(void *data, void *context) {
    const rotation_kernel *kernel = data;
    ort_api api = kernel->api;
    tensor x;
    TRY(read_input(api, context, 0, &x));
    rotation_work work = {.kernel = kernel, .x = x.data};
    if (x.rank < 1 || x.sizes[x.rank - 1] != kernel->rotation.size) REFUSE(api, "inputs that are not K");
    TRY(make_output(api, context, 0, x.sizes, x.rank, (void **)&work.out));
    work.rows = x.count / kernel->rotation.size;
    size_t tasks = (size_t)((work.rows + TASK_ROWS - 1) / TASK_ROWS);
    if (!tasks) return NULL;
    work.room = malloc(tasks * (size_t)kernel->rotation.size * 4);
    if (!work.room) return NO_MEMORY(api);
    ort_status *status = NULL;
    if (tasks > 1) status = ort_parallel(api, context, rotation_task, tasks, 0, &work);
    else rotation_task(&work, 0);
    free(work.room);
    return status;
}
