/* AVX2 with fused multiply-add. */
#if defined(__x86_64__)
#define TARGET "avx2,fma,f16c"
#define EDGEPRESS_AVX2
#define NAME kernels_avx2
#define TITLE "avx2"
#include "kernels.inc"
#endif
