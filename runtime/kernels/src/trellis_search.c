/* The symbols of tail-biting words: 64 weights of k bits, a window of 8 bits names the level of each.
 *
 * Viterbi's search over the bits that neighbouring windows share, which are 2^(8-k) nodes. A word ends at the
 * node where it begins: a first search starts in the middle of the word, free at both ends, and finds the node
 * at the seam; a second one is held to it (Tseng et al. 2024, "QTIP", arXiv 2406.11235). Sums of float32 in one
 * order, without fused products, ties to the lowest window: the symbols depend on nothing but the weights. */
#include <stdint.h>

enum { WEIGHTS = 64, WINDOWS = 256 };
static const float FORBIDDEN = 1e30f; /* 64 of them are finite */

/* The windows of the cheapest path through x[first], x[first + 1], ... (modulo 64), which begins and ends at
 * `node`, or anywhere where it is negative; weights from `real` on have symbol 0 and cost nothing. */
static void path(const float *x, int real, const float *levels, int k, int first, int node, uint8_t *windows) {
    const int nodes = WINDOWS >> k, choices = 1 << k;
    float cost[WINDOWS], before[WINDOWS];
    uint8_t from[WEIGHTS][WINDOWS];
    for (int n = 0; n < nodes; n++) before[n] = node < 0 || n == node ? 0.0f : FORBIDDEN;
    for (int i = 0; i < WEIGHTS; i++) {
        const int weight = (first + i) % WEIGHTS;
        for (int high = 0; high < choices; high++)
            for (int n = 0; n < nodes; n++) {
                const float error = x[weight] - levels[high * nodes + n];
                const float square = error * error;
                cost[high * nodes + n] = before[n] + square;
            }
        if (weight >= real)
            for (int w = 0; w < WINDOWS; w++) cost[w] = before[w & (nodes - 1)] + (w & (choices - 1) ? FORBIDDEN : 0.0f);
        for (int n = 0; n < nodes; n++) {
            int chosen = n << k;
            for (int w = chosen + 1; w < (n + 1) << k; w++)
                if (cost[w] < cost[chosen]) chosen = w;
            before[n] = cost[chosen];
            from[i][n] = (uint8_t)chosen;
        }
    }
    int at = node < 0 ? 0 : node;
    for (int n = 0; node < 0 && n < nodes; n++)
        if (before[n] < before[at]) at = n;
    for (int i = WEIGHTS - 1; i >= 0; i--) {
        windows[(first + i) % WEIGHTS] = from[i][at];
        at = from[i][at] & (nodes - 1);
    }
}

/* The symbols [words, 64] of x [words, 64], in units of levels [256], of k (2, 3 or 4) bits each; of every word
 * the first `real` weights count. */
#if defined(_WIN32)
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
void edgepress_trellis_search(const float *x, const float *levels, int64_t words, int real, int k, uint8_t *symbols);
void edgepress_trellis_search(const float *x, const float *levels, int64_t words, int real, int k, uint8_t *symbols) {
    for (int64_t word = 0; word < words; word++, x += WEIGHTS, symbols += WEIGHTS) {
        uint8_t windows[WEIGHTS];
        path(x, real, levels, k, WEIGHTS / 2, -1, windows);
        path(x, real, levels, k, 0, windows[0] & ((WINDOWS >> k) - 1), windows);
        for (int i = 0; i < WEIGHTS; i++) symbols[i] = windows[i] & ((1 << k) - 1);
    }
}
