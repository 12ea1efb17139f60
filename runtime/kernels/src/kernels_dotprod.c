/* NEON with the dot product of signed bytes. */
#if defined(__aarch64__)
#define TARGET "arch=armv8.2-a+dotprod"
#define EDGEPRESS_NEON
#define EDGEPRESS_DOTPROD
#define NAME kernels_dotprod
#define TITLE "neon-dotprod"
#include "kernels.inc"
#endif
