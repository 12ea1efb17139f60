/* NEON of every 64-bit Arm. */
#if defined(__aarch64__)
#define EDGEPRESS_NEON
#define NAME kernels_neon
#define TITLE "neon"
#include "kernels.inc"
#endif
