/* Without instructions of their own: the reference, and what runs on every other processor. */
#define NAME kernels_plain
#define TITLE "plain"
#include "kernels.inc"
