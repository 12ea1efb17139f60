/* The kernels for this processor. EDGEPRESS_KERNELS asks for others by name, as tests do: plain, avx2, avx-vnni,
 * avx512-vnni and amx on x86-64, and plain, neon, neon-dotprod and neon-i8mm on 64-bit Arm.
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
#if defined(EDGEPRESS_PLAYED_TILES) /* by tests/runtime/kernels/tiles.h */
static int amx(void) { return 1; }
#elif defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define REQUEST_STATE 0x1023
#define TILE_STATE 18
/* Tiles of bytes, in the processor and in the state that Linux keeps; and then lent to all threads of this process. */
static int amx(void) {
    unsigned a, b, c, d = 0, kept, rest;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 24 & 3) != 3) return 0;
    __asm__("xgetbv" : "=a"(kept), "=d"(rest) : "c"(0));
    return (kept >> 17 & 3) == 3 && !syscall(SYS_arch_prctl, REQUEST_STATE, TILE_STATE);
}
#endif
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
#if defined(__x86_64__) && defined(__linux__)
        /* What nobody asked for is not requested. */
        {&kernels_amx, wide && (!wanted || !strcmp(wanted, kernels_amx.name)) && amx()},
#endif
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
