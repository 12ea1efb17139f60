/* Tiles of AMX in plain C, for `cc -include`: so that sanitizers see what they read and write, on every processor
 * with AVX512-VNNI. As Intel's manual has them; what would be an invalid instruction ends the program.
 */
#if defined(__x86_64__)
#define EDGEPRESS_PLAYED_TILES
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint8_t palette, start, unused[14]; uint16_t bytes[16]; uint8_t rows[16]; } played_shape;
static _Thread_local struct { played_shape shape; uint8_t data[8][16][64]; } played;

static inline void play_config(const void *shape) {
    memset(&played, 0, sizeof played);
    memcpy(&played.shape, shape, sizeof played.shape);
    if (played.shape.palette != 1) abort();
}
static inline void play_release(void) { memset(&played, 0, sizeof played); }
static inline void play_valid(int tile) {
    if (!played.shape.palette || !played.shape.rows[tile] || played.shape.bytes[tile] % 4) abort();
}
static inline void play_zero(int tile) {
    play_valid(tile);
    memset(played.data[tile], 0, sizeof played.data[tile]);
}
static inline void play_load(int tile, const void *from, int64_t stride) {
    play_zero(tile);
    for (int row = 0; row < played.shape.rows[tile]; row++)
        memcpy(played.data[tile][row], (const uint8_t *)from + row * stride, played.shape.bytes[tile]);
}
static inline void play_store(int tile, void *into, int64_t stride) {
    play_valid(tile);
    for (int row = 0; row < played.shape.rows[tile]; row++)
        memcpy((uint8_t *)into + row * stride, played.data[tile][row], played.shape.bytes[tile]);
}
/* Signed bytes of `rows` by those of `lines`, signed or not, four neighbours to a sum. */
static inline void play_product(int sums, int rows, int lines, int is_signed) {
    const played_shape *s = &played.shape;
    play_valid(sums), play_valid(rows), play_valid(lines);
    if (s->rows[sums] != s->rows[rows] || s->bytes[sums] != s->bytes[lines] || s->bytes[rows] != 4 * s->rows[lines]) abort();
    for (int m = 0; m < s->rows[sums]; m++)
        for (int n = 0; n < s->bytes[sums] / 4; n++) {
            int32_t sum;
            memcpy(&sum, played.data[sums][m] + 4 * n, 4);
            for (int i = 0; i < s->bytes[rows]; i++) {
                uint8_t weight = played.data[lines][i / 4][4 * n + i % 4];
                sum += (int8_t)played.data[rows][m][i] * (is_signed ? (int8_t)weight : weight);
            }
            memcpy(played.data[sums][m] + 4 * n, &sum, 4);
        }
}
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_dpbssd
#define _tile_loadconfig play_config
#define _tile_release play_release
#define _tile_zero play_zero
#define _tile_loadd play_load
#define _tile_stored play_store
#define _tile_dpbsud(sums, rows, lines) play_product(sums, rows, lines, 0)
#define _tile_dpbssd(sums, rows, lines) play_product(sums, rows, lines, 1)
#endif
