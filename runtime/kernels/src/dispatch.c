/* The kernels for this processor. EDGEPRESS_KERNELS asks for others by name, as tests do: plain, avx2, avx-vnni and
 * avx512-vnni on x86-64, and plain, neon, neon-dotprod and neon-i8mm on 64-bit Arm.
 */
#include "product.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
/* Asked of the processor, since not every compiler knows these names. */
static int f16c(void) {
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c >> 29 & 1;
}
static int avxvnni(void) {
    unsigned a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
static int dotprod(void) { return getauxval(AT_HWCAP) >> 20 & 1; }
static int i8mm(void) { return getauxval(AT_HWCAP2) >> 13 & 1; }
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
static int feature(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(name, &value, &size, NULL, 0) && value;
}
static int dotprod(void) { return feature("hw.optional.arm.FEAT_DotProd"); }
static int i8mm(void) { return feature("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__aarch64__)
static int dotprod(void) { return 0; }
static int i8mm(void) { return 0; }
#endif

static const kernel_set *supported(const char *wanted) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c();
    int wide = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#endif
    const struct { const kernel_set *set; int here; } known[] = {
#if defined(__x86_64__)
        {&kernels_avx512, wide}, {&kernels_avxvnni, avx2 && avxvnni()}, {&kernels_avx2, avx2},
#elif defined(__aarch64__)
        {&kernels_i8mm, dotprod() && i8mm()}, {&kernels_dotprod, dotprod()}, {&kernels_neon, 1},
#endif
        {&kernels_plain, 1}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].here && (!wanted || !strcmp(wanted, known[i].set->name))) return known[i].set;
    return &kernels_plain;
}

const kernel_set *best_kernels(void) {
    const char *wanted = getenv("EDGEPRESS_KERNELS");
    return supported(wanted && *wanted ? wanted : NULL);
}

/* The name of the instructions that are used here. */
#if defined(_WIN32)
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
const char *edgepress_kernels(void);
const char *edgepress_kernels(void) { return best_kernels()->name; }

void dequantize_row(const product_weights *w, int64_t row, float *out) {
    int64_t lane = row % 16, groups = groups_of(w->k, w->group), size = group_bytes(w->group, w->bits, w->has_zero_points);
    int64_t codes = code_bytes(w->group, w->bits);
    int per_line = w->bits == 8 ? 4 : w->bits == 4 ? 8 : 16;
    const uint8_t *at = w->tiles + row / 16 * groups * size;
    for (int64_t g = 0; g < groups; g++, at += size) {
        float scale;
        memcpy(&scale, at + codes + 4 * lane, 4);
        int zero = w->has_zero_points ? at[codes + 64 + lane] : 1 << (w->bits - 1);
        for (int64_t i = 0; i < w->group && g * w->group + i < w->k; i++) {
            int64_t line = i / per_line, part = i % per_line / 4, byte = i % 4;
            int low = w->bits == 3 ? 2 : w->bits;
            int code = at[64 * line + 4 * lane + byte] >> (low * part) & ((1 << low) - 1);
            if (w->bits == 3) code |= (at[64 * (w->group / 16) + 64 * (i / 32) + 4 * lane + byte] >> (i % 32 / 4) & 1) << 2;
            out[g * w->group + i] = (float)(code - zero) * scale;
        }
    }
}
