// Loops of decoding over plain float32 memory. Compiled once for each instruction set (LANES floats in a register, names
// ending in VARIANT), so that nothing here may come from a header that other files include: the linker keeps one copy of an
// inline function, and it might be the one that this processor lacks. `decode.cpp` chooses and spreads over threads.
//
// What a row gets depends on that row alone, down to the last bit: every sum runs in one order whatever the number of rows.
#include "kernels.h"

#define JOIN(a, b) a##_##b
#define NAMED(a, b) JOIN(a, b)
#define KERNEL(name) NAMED(name, VARIANT)

namespace {

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef float Unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));

// Tiles whose sums fit the registers: 32 of them, or 16.
#ifdef __AVX512F__
constexpr int kDotRows = 4, kDotOuts = 6, kStripRows = 6, kStripWidth = 4;
#else
constexpr int kDotRows = 4, kDotOuts = 3, kStripRows = 6, kStripWidth = 2;
#endif
// Rows of a weight [in, out] that are visited before moving on to the next columns: few enough pages for the TLB.
constexpr int64_t kStripDepth = 64;

inline Floats load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Floats value) { *reinterpret_cast<Unaligned*>(to) = value; }
inline Floats all(float value) { return value - Floats{}; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }

inline float sum(Floats value) {
  union {
    Floats all;
    Four parts[LANES / 4];
  } v{value};
  Four total = v.parts[0];
  for (int i = 1; i < LANES / 4; ++i) total += v.parts[i];
  return (total[0] + total[1]) + (total[2] + total[3]);
}

inline float largest(Floats value) {
  float out = value[0];
  for (int i = 1; i < LANES; ++i) out = larger(out, value[i]);
  return out;
}

// e^x for x <= 0 to about one unit in the last place, 0 below e^-87: x = n ln 2 + r, and e^r by its series to the seventh
// power, which for |r| <= ln(2) / 2 leaves out less than 1e-8.
inline Floats exponential(Floats x) {
  const Floats round = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  Floats n = (x * 1.44269504f + round) - round;
  // ln 2 in two parts, of which the first times n is exact.
  Floats r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Floats p = r * (1.0f / 5040) + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  Ints nothing = x < -87.0f;  // false of NaN, which must stay
  Ints power = __builtin_convertvector(nothing ? Floats{} : n, Ints) + 127;
  Floats scale = reinterpret_cast<Floats>(power << 23);
  return nothing ? Floats{} : p * scale;
}

// ---- y = x w^T + bias, w [out, in]: tiles of dot products -------------------------------------------------------------

// `next`: the rows of w that come after these, of which lines of rows [from, to) are fetched meanwhile. Without that a small
// batch waits for memory while it could compute.
template <int R, int C>
inline void dot_tile(const Product& p, int64_t row, int64_t out, const float* next, int from, int to) {
  const float *x = p.x + row * p.in, *w = p.weight + out * p.in;
  Floats sums[R][C] = {};
  int64_t k = 0;
  for (; k + LANES <= p.in; k += LANES) {
    for (int c = from; c < to; ++c) __builtin_prefetch(next + c * p.in + k, 0, 2);
    Floats weights[C];
    for (int c = 0; c < C; ++c) weights[c] = load(w + c * p.in + k);
    for (int r = 0; r < R; ++r) {
      Floats values = load(x + r * p.in + k);
      for (int c = 0; c < C; ++c) sums[r][c] += values * weights[c];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) {
      float total = sum(sums[r][c]);
      for (int64_t i = k; i < p.in; ++i) total += x[r * p.in + i] * w[c * p.in + i];
      p.y[(row + r) * p.out + out + c] = p.bias ? total + p.bias[out + c] : total;
    }
  }
}

template <int R, int C>
void dot_rest(const Product& p, int64_t row, int64_t out, const float* next, int from) {
  if constexpr (R > 0) {
    if (p.rows - row == R) return dot_tile<R, C>(p, row, out, next, from, C);
    dot_rest<R - 1, C>(p, row, out, next, from);
  }
}

template <int C>
void dot_panel(const Product& p, int64_t out, const float* next) {
  auto tiles = static_cast<int>((p.rows + kDotRows - 1) / kDotRows);
  int64_t row = 0;
  for (int tile = 0; row + kDotRows <= p.rows; row += kDotRows, ++tile) {
    dot_tile<kDotRows, C>(p, row, out, next, tile * C / tiles, (tile + 1) * C / tiles);
  }
  dot_rest<kDotRows - 1, C>(p, row, out, next, (tiles - 1) * C / tiles);
}

// ---- y = x w + bias, w [in, out]: strips of columns -------------------------------------------------------------------

template <int R, int C>
inline void strip_tile(const Product& p, int64_t row, int64_t first, int64_t depth, int64_t out, int64_t ahead, int from,
                       int to) {
  const float *x = p.x + row * p.in + first, *w = p.weight + first * p.out + out;
  float* y = p.y + row * p.out + out;
  Floats sums[R][C];
  for (int c = 0; c < C; ++c) {
    Floats start = p.bias ? load(p.bias + out + c * LANES) : Floats{};
    for (int r = 0; r < R; ++r) sums[r][c] = first == 0 ? start : load(y + r * p.out + c * LANES);
  }
  for (int64_t k = 0; k < depth; ++k, w += p.out) {
    for (int c = from; c < to; ++c) __builtin_prefetch(w + ahead + c * LANES, 0, 2);
    Floats weights[C];
    for (int c = 0; c < C; ++c) weights[c] = load(w + c * LANES);
    for (int r = 0; r < R; ++r) {
      Floats value = all(x[r * p.in + k]);
      for (int c = 0; c < C; ++c) sums[r][c] += value * weights[c];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) store(y + r * p.out + c * LANES, sums[r][c]);
  }
}

template <int R, int C>
void strip_rest(const Product& p, int64_t row, int64_t first, int64_t depth, int64_t out, int64_t ahead, int from) {
  if constexpr (R > 0) {
    if (p.rows - row == R) return strip_tile<R, C>(p, row, first, depth, out, ahead, from, C);
    strip_rest<R - 1, C>(p, row, first, depth, out, ahead, from);
  }
}

template <int C>
void strip(const Product& p, int64_t first, int64_t depth, int64_t out, int64_t ahead) {
  auto tiles = static_cast<int>((p.rows + kStripRows - 1) / kStripRows);
  int64_t row = 0;
  for (int tile = 0; row + kStripRows <= p.rows; row += kStripRows, ++tile) {
    strip_tile<kStripRows, C>(p, row, first, depth, out, ahead, tile * C / tiles, (tile + 1) * C / tiles);
  }
  strip_rest<kStripRows - 1, C>(p, row, first, depth, out, ahead, (tiles - 1) * C / tiles);
}

// ---- Attention of one query a row -------------------------------------------------------------------------------------

inline float dot(const float* a, const float* b, int64_t count) {
  Floats sums{};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) sums += load(a + i) * load(b + i);
  float total = sum(sums);
  for (; i < count; ++i) total += a[i] * b[i];
  return total;
}

// to += factor * from
inline void add(float* to, const float* from, float factor, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, load(to + i) + all(factor) * load(from + i));
  for (; i < count; ++i) to[i] += factor * from[i];
}

// Values [count, with room for LANES more] become e^(value - largest); gives their sum.
inline float exponentials(float* values, int64_t count) {
  float top = values[0];
  for (int64_t i = 1; i < count; ++i) top = larger(top, values[i]);
  for (int64_t i = count; i % LANES; ++i) values[i] = -__builtin_inff();
  Floats sums{};
  for (int64_t i = 0; i < count; i += LANES) {
    Floats parts = exponential(load(values + i) - top);
    sums += parts;
    store(values + i, parts);
  }
  return sum(sums);
}

void attend(const Step& s, int64_t row, float* scores) {
  const int64_t width = s.kv_heads * s.head_dim, group = s.heads / s.kv_heads, at = s.at[row];
  float* keys = s.keys + s.slot[row] * s.capacity * width;
  float* values = s.values + s.slot[row] * s.capacity * width;
  const float* q = s.q + row * s.q_stride;
  for (int64_t i = 0; i < width; ++i) keys[at * width + i] = s.k[row * s.kv_stride + i];
  for (int64_t i = 0; i < width; ++i) values[at * width + i] = s.v[row * s.kv_stride + i];
  const int64_t first = s.window > 0 && at >= s.window ? at + 1 - s.window : 0, count = at + 1 - first;
  const int64_t room = (count + LANES - 1) / LANES * LANES;
  // Token by token, so that keys and values are read in the order in which they lie.
  for (int64_t t = 0; t < count; ++t) {
    const float* key = keys + (first + t) * width;
    for (int64_t h = 0; h < s.heads; ++h) {
      scores[h * room + t] = s.scale * dot(q + h * s.head_dim, key + h / group * s.head_dim, s.head_dim);
    }
  }
  float* out = s.out + row * s.heads * s.head_dim;
  for (int64_t i = 0; i < s.heads * s.head_dim; ++i) out[i] = 0;
  for (int64_t h = 0; h < s.heads; ++h) {
    float total = exponentials(scores + h * room, count);
    for (int64_t t = 0; t < count; ++t) scores[h * room + t] /= total;
  }
  for (int64_t t = 0; t < count; ++t) {
    const float* value = values + (first + t) * width;
    for (int64_t h = 0; h < s.heads; ++h) {
      add(out + h * s.head_dim, value + h / group * s.head_dim, scores[h * room + t], s.head_dim);
    }
  }
}

// ---- Sampling ---------------------------------------------------------------------------------------------------------

constexpr int64_t kBlock = 512;

// e^((logit - top) * inverse) of the tokens [from, from + LANES), 0 beyond the vocabulary.
inline Floats weights(const Draw& d, const float* logits, int64_t from, float top) {
  if (from + LANES <= d.vocab) return exponential((load(logits + from) - top) * d.inverse_temperature);
  float rest[LANES];
  for (int i = 0; i < LANES; ++i) rest[i] = from + i < d.vocab ? logits[from + i] : -__builtin_inff();
  return exponential((load(rest) - top) * d.inverse_temperature);
}

// The sum of a block's weights: in double over the blocks, else a tail of small probabilities would drown.
inline double block_sum(const Draw& d, const float* logits, int64_t block, float top) {
  Floats sums{};
  for (int64_t i = block; i < smaller(block + kBlock, d.vocab); i += LANES) sums += weights(d, logits, i, top);
  double total = 0;
  for (int lane = 0; lane < LANES; ++lane) total += static_cast<double>(sums[lane]);
  return total;
}

inline float largest_logit(const Draw& d, const float* logits) {
  Floats tops = all(-__builtin_inff());
  int64_t i = 0;
  for (; i + LANES <= d.vocab; i += LANES) {
    Floats values = load(logits + i);
    tops = values > tops ? values : tops;
  }
  float top = largest(tops);
  for (; i < d.vocab; ++i) top = larger(top, logits[i]);
  return top;
}

// The first token at which the running sum of weights passes `share` of the total; the last one with any weight where
// rounding carries past the end.
void draw(const Draw& d, int64_t row, double* before) {
  const float* logits = d.logits + row * d.vocab;
  const float top = largest_logit(d, logits);
  double total = 0;
  int64_t blocks = 0;
  for (int64_t i = 0; i < d.vocab; i += kBlock) {
    before[blocks++] = total;
    total += block_sum(d, logits, i, top);
  }
  d.tokens[row] = -1;
  // NaN anywhere makes the total NaN; +inf makes it NaN by inf - inf.
  if (!(total > 0) || total > 1e300) return;
  const double target = d.uniforms[row] * total;
  int64_t block = blocks - 1;
  // Empty blocks at the end have their start at the total, which the target may reach.
  while (block > 0 && (before[block] > target || before[block] >= total)) --block;
  double running = before[block];
  const int64_t end = smaller((block + 1) * kBlock, d.vocab);
  for (int64_t i = block * kBlock; i < end; i += LANES) {
    Floats parts = weights(d, logits, i, top);
    for (int lane = 0; lane < LANES && i + lane < end; ++lane) {
      if (parts[lane] == 0) continue;
      running += static_cast<double>(parts[lane]);
      d.tokens[row] = i + lane;
      if (running > target) {
        i = end;
        break;
      }
    }
  }
  const double chosen = static_cast<double>((logits[d.tokens[row]] - top) * d.inverse_temperature);
  d.logprobs[row] = static_cast<float>(chosen - __builtin_log(total));
}

}  // namespace

extern "C" {

void KERNEL(collimate_dot_panels)(const Product* product, int64_t begin, int64_t end) {
  const Product& p = *product;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t out = panel * kDotOuts;
    if (out + kDotOuts > p.out) {
      for (int64_t o = out; o < p.out; ++o) dot_panel<1>(p, o, p.weight + o * p.in);
      continue;
    }
    const bool more = panel + 1 < end && out + 2 * kDotOuts <= p.out;
    dot_panel<kDotOuts>(p, out, p.weight + (more ? out + kDotOuts : out) * p.in);
  }
}

int64_t KERNEL(collimate_dot_width)() { return kDotOuts; }

void KERNEL(collimate_strips)(const Product* product, int64_t begin, int64_t end) {
  const Product& p = *product;
  constexpr int64_t width = kStripWidth * LANES;
  const int64_t last = smaller(end * width, p.out);
  for (int64_t first = 0; first < p.in; first += kStripDepth) {
    const int64_t depth = smaller(kStripDepth, p.in - first);
    int64_t out = begin * width;
    for (; out + width <= last; out += width) {
      strip<kStripWidth>(p, first, depth, out, out + 2 * width <= last ? width : 0);
    }
    for (; out + LANES <= last; out += LANES) strip<1>(p, first, depth, out, 0);
    for (; out < last; ++out) {
      for (int64_t row = 0; row < p.rows; ++row) {
        float& y = p.y[row * p.out + out];
        if (first == 0) y = p.bias ? p.bias[out] : 0;
        for (int64_t k = first; k < first + depth; ++k) y += p.x[row * p.in + k] * p.weight[k * p.out + out];
      }
    }
  }
}

int64_t KERNEL(collimate_strip_width)() { return kStripWidth * LANES; }

void KERNEL(collimate_attend)(const Step* step, float* scores, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) attend(*step, row, scores);
}

void KERNEL(collimate_draw)(const Draw* drawn, double* before, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) draw(*drawn, row, before);
}
}
