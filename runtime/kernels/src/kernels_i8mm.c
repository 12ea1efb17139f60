/* NEON with the dot product of unsigned and signed bytes, which comes with the extension i8mm. */
#if defined(__aarch64__)
#define TARGET "arch=armv8.2-a+dotprod+i8mm"
#define EDGEPRESS_NEON
#define EDGEPRESS_DOTPROD
#define EDGEPRESS_I8MM
#define NAME kernels_i8mm
#define TITLE "neon-i8mm"
#include "kernels.inc"
#endif
