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

// A tile of kRows rows and kRegisters registers of columns has its sums in registers: of 32, or of 16.
#ifdef __AVX512F__
constexpr int kRows = 6, kRegisters = 4;
#else
constexpr int kRows = 6, kRegisters = 2;
#endif
// Columns of a panel, and how many of the `in` terms of its sums are added before the next panel. More terms would need more
// pages than the first-level TLB holds, and fetching ahead would do nothing.
constexpr int64_t kWidth = kRegisters * LANES, kDepth = 64;
// Terms between two looks ahead.
constexpr int kStretch = 16;

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

// ---- y = x w + bias ---------------------------------------------------------------------------------------------------
//
// A panel of the weight, kDepth terms of kWidth columns, is copied so that it lies in a row, and all rows of x are multiplied
// with it. Where one tile holds all rows, a weight that is [in, out] already is read where it lies.

// The panel that comes next, of which each tile fetches a part, [from, to) of every kStretch terms' registers: without that a
// small batch waits for memory while it could compute. Addresses past the weight's end do no harm.
struct Ahead {
  const float* weight;
  int64_t stride;
  bool in_out;

  void fetch(int64_t stretch, int from, int to) const {
    for (int i = from; i < to; ++i) {
      const auto at = static_cast<uint64_t>(stretch * kStretch * kRegisters + i);
      const uint64_t row = in_out ? at / kRegisters : at / (kDepth / LANES);
      const uint64_t column = in_out ? at % kRegisters : at % (kDepth / LANES);
      __builtin_prefetch(weight + row * static_cast<uint64_t>(stride) + column * LANES, 0, 2);
    }
  }
};

inline Floats load_some(const float* from, int64_t count) {
  if (count >= LANES) return load(from);
  float out[LANES] = {};
  for (int64_t i = 0; i < count; ++i) out[i] = from[i];
  return load(out);
}

inline void store_some(float* to, Floats value, int64_t count) {
  if (count >= LANES) return store(to, value);
  float from[LANES];
  store(from, value);
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// Where a panel's part of y lies, and the panel.
struct Panel {
  int64_t first, depth, out, columns;
  const float* weight;
  int64_t stride;
  Ahead ahead;
};

template <int R>
inline void tile(const Product& p, const Panel& at, int64_t row, int from, int to) {
  const float *x = p.x + row * p.in + at.first, *w = at.weight;
  float* y = p.y + row * p.out + at.out;
  Floats sums[R][kRegisters];
  for (int c = 0; c < kRegisters; ++c) {
    const int64_t count = at.columns - c * LANES;
    Floats start = p.bias ? load_some(p.bias + at.out + c * LANES, count) : Floats{};
    for (int r = 0; r < R; ++r) sums[r][c] = at.first == 0 ? start : load_some(y + r * p.out + c * LANES, count);
  }
  for (int64_t stretch = 0; stretch * kStretch < at.depth; ++stretch) {
    at.ahead.fetch(stretch, from, to);
    const int64_t end = smaller(stretch * kStretch + kStretch, at.depth);
    for (int64_t k = stretch * kStretch; k < end; ++k, w += at.stride) {
      Floats weights[kRegisters];
      for (int c = 0; c < kRegisters; ++c) weights[c] = load(w + c * LANES);
      for (int r = 0; r < R; ++r) {
        Floats value = all(x[r * p.in + k]);
        for (int c = 0; c < kRegisters; ++c) sums[r][c] += value * weights[c];
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < kRegisters; ++c) store_some(y + r * p.out + c * LANES, sums[r][c], at.columns - c * LANES);
  }
}

template <int R>
void rest(const Product& p, const Panel& at, int64_t row, int from) {
  if constexpr (R > 0) {
    if (p.rows - row == R) return tile<R>(p, at, row, from, kStretch * kRegisters);
    rest<R - 1>(p, at, row, from);
  }
}

void rows(const Product& p, const Panel& at) {
  const auto tiles = static_cast<int>((p.rows + kRows - 1) / kRows);
  constexpr int lines = kStretch * kRegisters;
  int64_t row = 0;
  for (int t = 0; row + kRows <= p.rows; row += kRows, ++t) {
    tile<kRows>(p, at, row, t * lines / tiles, (t + 1) * lines / tiles);
  }
  rest<kRows - 1>(p, at, row, (tiles - 1) * lines / tiles);
}

#ifdef __AVX512F__
#define EVENS 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ODDS 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#else
#define EVENS 0, 8, 1, 9, 2, 10, 3, 11
#define ODDS 4, 12, 5, 13, 6, 14, 7, 15
#endif

// LANES rows of LANES become columns: rows that lie half the block apart are interleaved, log2(LANES) times.
inline void transpose(Floats (&block)[LANES]) {
  for (int step = 1; step < LANES; step *= 2) {
    Floats next[LANES];
    for (int i = 0; i < LANES / 2; ++i) {
      next[2 * i] = __builtin_shufflevector(block[i], block[i + LANES / 2], EVENS);
      next[2 * i + 1] = __builtin_shufflevector(block[i], block[i + LANES / 2], ODDS);
    }
    for (int i = 0; i < LANES; ++i) block[i] = next[i];
  }
}

// The panel at a place as [depth, kWidth]; columns that the weight has not are zeros.
void pack_in_out(const Product& p, const Panel& at, float* to) {
  for (int64_t k = 0; k < at.depth; ++k) {
    const float* from = p.weight + (at.first + k) * p.out + at.out;
    for (int64_t c = 0; c < kWidth; c += LANES) store(to + k * kWidth + c, load_some(from + c, at.columns - c));
  }
}

void pack_out_in(const Product& p, const Panel& at, float* to) {
  for (int64_t c = 0; c < kWidth; c += LANES) {
    for (int64_t k = 0; k < at.depth; k += LANES) {
      Floats block[LANES];
      for (int i = 0; i < LANES; ++i) {
        const float* from = p.weight + (at.out + c + i) * p.in + at.first + k;
        block[i] = c + i < at.columns ? load_some(from, at.depth - k) : Floats{};
      }
      transpose(block);
      for (int64_t i = 0; i < smaller(LANES, at.depth - k); ++i) store(to + (k + i) * kWidth + c, block[i]);
    }
  }
}

// `next`: the weight's part that is wanted after this one.
void panel(const Product& p, int64_t out, int64_t first, const float* next, float* packed) {
  Panel at{first, smaller(kDepth, p.in - first), out, smaller(kWidth, p.out - out), packed, kWidth,
           Ahead{next, p.in_out ? p.out : p.in, p.in_out}};
  if (p.in_out && p.rows <= kRows && at.columns == kWidth) {
    at.weight = p.weight + first * p.out + out;
    at.stride = p.out;
  } else if (p.in_out) {
    pack_in_out(p, at, packed);
  } else {
    pack_out_in(p, at, packed);
  }
  rows(p, at);
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

// ---- Activations ------------------------------------------------------------------------------------------------------

// act(x) and its derivative.
struct Slope {
  Floats value, slope;
};

// GELU in the tanh approximation, x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3).
inline Slope gelu_tanh(Floats x) {
  constexpr float k = 0.7978845608f, cubic = 0.044715f;
  Floats square = x * x, u = k * x * (1.0f + cubic * square);
  Floats e = exponential(u > 0.0f ? -2.0f * u : 2.0f * u);
  Floats t = (1.0f - e) / (1.0f + e);
  t = u > 0.0f ? t : -t;
  Floats inner = k * (1.0f + 3.0f * cubic * square);
  return {0.5f * x * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner};
}

// x / (1 + e^-x)
inline Slope silu(Floats x) {
  Floats e = exponential(x > 0.0f ? -x : x), s = 1.0f / (1.0f + e);
  s = x > 0.0f ? s : e * s;
  return {x * s, s * (1.0f + x * (1.0f - s))};
}

template <Slope (*act)(Floats)>
void activate(const Activated& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += LANES) {
    const int64_t count = end - i;
    Floats value = act(load_some(a.x + i, count)).value;
    if (a.gate != nullptr) value *= load_some(a.gate + i, count);
    store_some(a.values + i, value, count);
  }
}

template <Slope (*act)(Floats)>
void activate_back(const Activated& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += LANES) {
    const int64_t count = end - i;
    auto [value, slope] = act(load_some(a.x + i, count));
    Floats grad = load_some(a.grads + i, count);
    if (a.gate != nullptr) {
      Floats gate = load_some(a.gate + i, count);
      store_some(a.gate_grads + i, grad * value, count);
      value *= gate;
      grad *= gate;
    }
    store_some(a.values + i, value, count);
    store_some(a.grads + i, grad * slope, count);
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

// Panels [begin, end) of kWidth columns. Of a weight [in, out] all panels' first kDepth terms come first: few enough pages for
// the TLB, which columns of it would exhaust.
void KERNEL(collimate_product)(const Product* product, int64_t begin, int64_t end) {
  const Product& p = *product;
  alignas(64) float packed[kDepth * kWidth];
  if (p.in_out) {
    for (int64_t first = 0; first < p.in; first += kDepth) {
      for (int64_t out = begin * kWidth; out < smaller(end * kWidth, p.out); out += kWidth) {
        panel(p, out, first, p.weight + first * p.out + out + kWidth, packed);
      }
    }
    return;
  }
  for (int64_t out = begin * kWidth; out < smaller(end * kWidth, p.out); out += kWidth) {
    for (int64_t first = 0; first < p.in; first += kDepth) {
      const bool more = first + kDepth < p.in;
      panel(p, out, first, more ? p.weight + out * p.in + first + kDepth : p.weight + (out + kWidth) * p.in, packed);
    }
  }
}

int64_t KERNEL(collimate_panel_width)() { return kWidth; }

void KERNEL(collimate_attend)(const Step* step, float* scores, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) attend(*step, row, scores);
}

void KERNEL(collimate_activate)(const Activated* a, int64_t begin, int64_t end) {
  a->activation == kSilu ? activate<silu>(*a, begin, end) : activate<gelu_tanh>(*a, begin, end);
}

void KERNEL(collimate_activate_back)(const Activated* a, int64_t begin, int64_t end) {
  a->activation == kSilu ? activate_back<silu>(*a, begin, end) : activate_back<gelu_tanh>(*a, begin, end);
}

void KERNEL(collimate_draw)(const Draw* drawn, double* before, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) draw(*drawn, row, before);
}
}
