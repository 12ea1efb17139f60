/* NEON with the products of unsigned and signed bytes of the extension i8mm: of matrices for two rows and more, of
 * vectors for a single one. */
#if defined(__aarch64__)
#define TARGET "arch=armv8.2-a+dotprod+i8mm"
#define EDGEPRESS_NEON
#define EDGEPRESS_DOTPROD
#define EDGEPRESS_I8MM
#define NAME kernels_i8mm
#define TITLE "neon-i8mm"
#include "kernels.inc"
#endif
