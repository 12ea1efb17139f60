/* AVX2 with VNNI. */
#if defined(__x86_64__)
#define TARGET "avx2,fma,f16c,avxvnni"
#define EDGEPRESS_AVX2
#define EDGEPRESS_AVXVNNI
#define NAME kernels_avxvnni
#define TITLE "avx-vnni"
#include "kernels.inc"
#endif
