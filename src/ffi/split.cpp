// Float32 products on the matrix unit that multiplies bfloat16 (AMX), at about one and a half times the vector unit's rate.
//
// A float32 is the sum of three bfloat16 without loss: its first 8 significant bits, the next 8, the last 8. Of the nine
// products of the pieces of two numbers the six largest are added up in float32; what is left out is below 2^-21 of the whole
// and half a unit in the last place on average (Henry, Tang, Heinecke 2019, "Leveraging the bfloat16 artificial intelligence
// datatype for higher-precision computations"). The result is no further from the exact one than the vector unit's. What
// differs: values below 1e-33 lose digits, since the unit takes the smallest numbers for 0, and an infinity gives NaN.
//
// Built with flags of its own, so that nothing here may come from a header that other files include.
#include "split.h"

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int kPieces = 3, kLanes = 16;
// A tile: 16 rows of 16 pairs of bfloat16. The terms of a pair lie 16 apart, so that pieces are joined lane by lane.
constexpr int64_t kTile = 1024;
// A panel's pieces of 32 terms: two tiles of each.
constexpr int64_t kStep = 2 * kPieces * kTile;

constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
// Of 16 lanes those below `count`.
inline __mmask16 lanes(int64_t count) {
  return count <= 0 ? __mmask16{0} : static_cast<__mmask16>(0xffff >> (kLanes - smaller(count, kLanes)));
}

struct alignas(64) Configuration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

// All eight tiles whole, for one thread, until its destructor.
class Tiles {
 public:
  Tiles() {
    Configuration all;
    for (int i = 0; i < 8; ++i) all.bytes[i] = 64, all.rows[i] = 16;
    _tile_loadconfig(&all);
  }
  ~Tiles() { _tile_release(); }
};

// ---- Pieces -----------------------------------------------------------------------------------------------------------

// 16 rows become columns.
inline void transpose(__m512 (&rows)[kLanes]) {
  const __m512i evens = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i odds = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
#pragma GCC unroll 4
  for (int step = 1; step < kLanes; step *= 2) {
    __m512 next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = _mm512_permutex2var_ps(rows[i], evens, rows[i + kLanes / 2]);
      next[2 * i + 1] = _mm512_permutex2var_ps(rows[i], odds, rows[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

// 16 rows of 16 values from memory; zeros beyond `rows` and `columns`.
inline void load(__m512 (&to)[kLanes], const float* from, int64_t stride, int64_t rows, int64_t columns) {
  if (rows >= kLanes && columns >= kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) to[i] = _mm512_loadu_ps(from + i * stride);
    return;
  }
  for (int i = 0; i < kLanes; ++i) {
    to[i] = i < rows ? _mm512_maskz_loadu_ps(lanes(columns), from + i * stride) : _mm512_setzero_ps();
  }
}

// Takes the first 8 significant bits off each value and joins them in pairs.
inline __m512i piece(__m512& low, __m512& high) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000));
  __m512i first = _mm512_and_si512(_mm512_castps_si512(low), mask);
  __m512i second = _mm512_and_si512(_mm512_castps_si512(high), mask);
  low = _mm512_sub_ps(low, _mm512_castsi512_ps(first));
  high = _mm512_sub_ps(high, _mm512_castsi512_ps(second));
  return _mm512_or_si512(_mm512_srli_epi32(first, 16), second);
}

// A tile of each piece, of 16 lines by 32 terms. The unit wants the left side's tiles by line and the right one's by pair of
// terms: what lies the other way is transposed.
inline void pack(const SplitLines& s, int64_t line, int64_t term, char* to) {
  const float* from = s.from + (s.in_order ? line * s.stride + term : term * s.stride + line);
  const int64_t lines = s.lines - line, terms = s.terms - term;
  __m512 low[kLanes], high[kLanes];
  if (s.in_order) {
    load(low, from, s.stride, lines, terms);
    load(high, from + kLanes, s.stride, lines, terms - kLanes);
  } else {
    load(low, from, s.stride, terms, lines);
    load(high, from + kLanes * s.stride, s.stride, terms - kLanes, lines);
  }
  if (s.in_order != s.left) {
    transpose(low);
    transpose(high);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
#pragma GCC unroll 3
    for (int p = 0; p < kPieces; ++p) _mm512_store_si512(to + p * 2 * kTile + i * 64, piece(low[i], high[i]));
  }
}

// ---- Products ---------------------------------------------------------------------------------------------------------

#define LOAD_LEFT(piece)                                     \
  _tile_loadd(4, left + (piece) * 2 * kTile, 64);            \
  _tile_loadd(5, left + (piece) * 2 * kTile + kTile, 64)
#define LOAD_RIGHT(piece)                                    \
  _tile_loadd(6, right + (piece) * 2 * kTile, 64);           \
  _tile_loadd(7, right + (piece) * 2 * kTile + kTile, 64)
#define MULTIPLY()         \
  _tile_dpbf16ps(0, 4, 6); \
  _tile_dpbf16ps(1, 4, 7); \
  _tile_dpbf16ps(2, 5, 6); \
  _tile_dpbf16ps(3, 5, 7)

// The sums of a panel by a panel, [2, 2] tiles. Tiles 0 to 3 are the sums, 4 and 5 rows, 6 and 7 columns; one side's change at
// a time, and the largest products come last.
inline void multiply(const char* left, const char* right, int64_t steps, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < steps; ++s, left += kStep, right += kStep) {
    LOAD_LEFT(2);
    LOAD_RIGHT(0);
    MULTIPLY();
    LOAD_LEFT(1);
    MULTIPLY();
    LOAD_RIGHT(1);
    MULTIPLY();
    LOAD_LEFT(0);
    MULTIPLY();
    LOAD_RIGHT(2);
    MULTIPLY();
    LOAD_RIGHT(0);
    MULTIPLY();
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + 512, 64);
  _tile_stored(3, sums + 768, 64);
}

// Fetches what `write` needs while the sums are made; addresses past the end do no harm.
inline void fetch(const SplitBlock& b, int64_t row, int64_t column) {
  const float* at = b.y + row * b.stride + column;
  for (int64_t r = 0; r < kSplitPanel; ++r, at += b.stride) {
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + kLanes, 0, 2);
  }
}

inline void write(const SplitBlock& b, int64_t row, int64_t column, const float* sums) {
  const int64_t rows = smaller(b.rows - row, kSplitPanel);
  for (int64_t c = 0; c < kSplitPanel; c += kLanes) {
    const __mmask16 mask = lanes(b.columns - column - c);
    const __m512 bias = b.bias ? _mm512_maskz_loadu_ps(mask, b.bias + column + c) : _mm512_setzero_ps();
    float* to = b.y + row * b.stride + column + c;
    for (int64_t r = 0; r < rows; ++r, to += b.stride) {
      __m512 value = _mm512_add_ps(_mm512_load_ps(sums + r / kLanes * 512 + r % kLanes * kLanes + c * kLanes), bias);
      if (b.add) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, to));
      _mm512_mask_storeu_ps(to, mask, value);
    }
  }
}

}  // namespace

extern "C" {

int collimate_split_works() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("amx-bf16")) return 0;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

void collimate_split_pack(const SplitLines* lines, int64_t begin, int64_t end) {
  char* to = lines->to + begin * split_bytes(lines->terms);
  for (int64_t line = begin * kSplitPanel; line < end * kSplitPanel; line += kSplitPanel) {
    for (int64_t term = 0; term < lines->terms; term += kSplitPanel, to += kStep) {
      pack(*lines, line, term, to);
      pack(*lines, line + kLanes, term, to + kTile);
    }
  }
}

void collimate_split_multiply(const SplitBlock* block, int64_t begin, int64_t end) {
  const int64_t steps = split_panels(block->terms), bytes = steps * kStep;
  alignas(64) float sums[kSplitPanel * kSplitPanel];
  Tiles tiles;
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t r = 0; r < split_panels(block->rows); ++r) {
      fetch(*block, r * kSplitPanel, c * kSplitPanel);
      multiply(block->left + r * bytes, block->right + c * bytes, steps, sums);
      write(*block, r * kSplitPanel, c * kSplitPanel, sums);
    }
  }
}
}
