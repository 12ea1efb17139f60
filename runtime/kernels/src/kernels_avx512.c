/* AVX-512 with VNNI. */
#if defined(__x86_64__)
#define TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,avx2,f16c"
#define EDGEPRESS_AVX512
#define NAME kernels_avx512
#define TITLE "avx512-vnni"
#include "kernels.inc"
#endif
