// Rows of logits, vectorised by the compiler for the processor at hand. Knows nothing of libtorch.
#include "rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

// One binary for every processor: the loader takes the widest that this one has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDEST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDEST
#endif

namespace collimate {
namespace {

// Floats are added up in runs of this many, the runs in double: 150,000 terms lose nothing.
constexpr int64_t kRun = 1024;

// Below it e^x is no normal float.
constexpr float kLeast = -87.0f;

// e^x for kLeast <= x <= 88, within two units in the last place: x = n log 2 + r, a polynomial in r, n into the exponent.
inline __attribute__((always_inline)) float exponential(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  float n = x * 1.44269504088896341f + kRound;
  int32_t bits;
  std::memcpy(&bits, &n, sizeof bits);
  n -= kRound;
  // log 2 in two parts, so that n log 2 is exact.
  float r = x - n * 0.693145751953125f;
  r -= n * 1.428606765330187e-6f;
  // Taylor's polynomial to degree 7; |r| <= log(2) / 2 leaves 5e-9.
  float p = 1.9841269841e-4f;
  p = p * r + 1.3888888889e-3f;
  p = p * r + 8.3333333333e-3f;
  p = p * r + 4.1666666667e-2f;
  p = p * r + 1.6666666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  int32_t power = bits << 23;
  int32_t value;
  std::memcpy(&value, &p, sizeof value);
  value += power;
  std::memcpy(&p, &value, sizeof p);
  return p;
}

}  // namespace

WIDEST
RowStats row_stats(const float* x, int64_t vocab, int64_t target, float scale, bool figures) {
  float largest = -std::numeric_limits<float>::infinity(), least = -largest;
#pragma omp simd reduction(max : largest) reduction(min : least)
  for (int64_t i = 0; i < vocab; ++i) {
    float z = x[i] * scale;
    largest = z > largest ? z : largest;
    least = z < least ? z : least;
  }
  double total = 0, weighted = 0;
  // Not `<= 0`: with fused multiply and add the largest itself may come out just above.
  int32_t bad = 0;
  for (int64_t from = 0; from < vocab; from += kRun) {
    int64_t to = std::min(vocab, from + kRun);
    float sum = 0, product = 0;
    if (figures) {
#pragma omp simd reduction(+ : sum, product) reduction(| : bad)
      for (int64_t i = from; i < to; ++i) {
        float z = x[i] * scale - largest;
        bad |= !(z <= 1.0f);
        z = z < kLeast ? kLeast : z;
        float e = exponential(z);
        sum += e;
        product += e * z;
      }
    } else {
#pragma omp simd reduction(+ : sum) reduction(| : bad)
      for (int64_t i = from; i < to; ++i) {
        float z = x[i] * scale - largest;
        bad |= !(z <= 1.0f);
        sum += exponential(z < kLeast ? kLeast : z);
      }
    }
    total += sum;
    weighted += product;
  }
  double log_total = std::log(total);
  RowStats out{};
  out.size = std::max(std::abs(largest), std::abs(least));
  out.lse = static_cast<float>(largest + log_total);
  out.logprob = static_cast<float>(static_cast<double>(x[target] * scale - largest) - log_total);
  // A row with a NaN or an infinity must not look like another.
  if (bad != 0) out.logprob = out.lse = std::numeric_limits<float>::quiet_NaN();
  if (!figures) return out;
  out.entropy = static_cast<float>(log_total - weighted / total);
  bool first = x[target] * scale == largest;
  for (int64_t i = 0; first && i < target; ++i) first = x[i] * scale != largest;
  out.correct = first ? 1.0f : 0.0f;
  return out;
}

WIDEST
void row_gradient(float* x, int64_t vocab, int64_t target, float scale, float lse, float upstream) {
  float factor = -upstream * scale;
#pragma omp simd
  for (int64_t i = 0; i < vocab; ++i) {
    float z = x[i] * scale - lse;
    x[i] = exponential(z < kLeast ? kLeast : z) * factor;
  }
  x[target] -= factor;
}

}  // namespace collimate
