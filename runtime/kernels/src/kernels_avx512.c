/* AVX-512 with VNNI, and the same with AMX, where Linux lends it; no compiler uses AMX of its own accord. */
#if defined(__x86_64__)
#if defined(__linux__)
#define EDGEPRESS_AMX
#define TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,avx2,f16c,amx-tile,amx-int8"
#else
#define TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,avx2,f16c"
#endif
#define EDGEPRESS_AVX512
#define NAME kernels_avx512
#define TITLE "avx512-vnni"
#include "kernels.inc"
#endif
