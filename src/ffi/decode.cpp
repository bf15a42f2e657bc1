// Decoding on the CPU in float32: products of few rows without a copy of the weight, attention of one query a row, the draw
// of a token. Owns checks, the choice of `kernels.cpp`'s variant and the threads. What is not served gives no tensor back;
// the caller then goes libtorch's way.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <vector>

#include "kernels.h"
#include "shim.h"

using at::Tensor;
using collimate::guarded;

#define DECLARE(variant)                                                                   \
  void collimate_product_##variant(const Product*, int64_t begin, int64_t end);            \
  int64_t collimate_panel_width_##variant();                                               \
  void collimate_attend_##variant(const Step*, float* scores, int64_t begin, int64_t end); \
  void collimate_draw_##variant(const Draw*, double* before, int64_t begin, int64_t end);  \
  void collimate_activate_##variant(const Activated*, int64_t begin, int64_t end);         \
  void collimate_activate_back_##variant(const Activated*, int64_t begin, int64_t end);
#define VARIANT_OF(variant)                                                                        \
  Kernels {                                                                                        \
    collimate_product_##variant, collimate_attend_##variant, collimate_draw_##variant,             \
        collimate_activate_##variant, collimate_activate_back_##variant, collimate_panel_width_##variant() \
  }

#ifdef COLLIMATE_KERNELS
extern "C" {
DECLARE(avx512)
DECLARE(avx2)
}
#endif

// Of the instruction set that libtorch uses too (ATEN_CPU_CAPABILITY may lower it).
extern "C" const Kernels* collimate_kernels() {
  static const Kernels* chosen = []() -> const Kernels* {
#ifdef COLLIMATE_KERNELS
    static const Kernels wide = VARIANT_OF(avx512), narrow = VARIANT_OF(avx2);
    auto capability = at::get_cpu_capability();
    if (capability.starts_with("AVX512")) return &wide;
    if (capability.starts_with("AVX2")) return &narrow;
#endif
    return nullptr;
  }();
  return chosen;
}

namespace {

// Up to here these loops are the faster ones; beyond it libtorch's product is at least as fast.
constexpr int64_t kMostRows = 128;
// Multiplications that are worth a thread.
constexpr int64_t kThreadWork = 1 << 16;

bool plain(const Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.layout() == at::kStrided &&
         !(at::GradMode::is_enabled() && tensor.requires_grad());
}

// [R, h, d] with each row's values side by side.
Tensor rows_of(const Tensor& tensor) {
  bool fits = tensor.stride(2) == 1 && tensor.stride(1) == tensor.size(2);
  return fits ? tensor : tensor.contiguous();
}

bool served(const Tensor& x, const Tensor& weight, const Tensor* bias) {
  return collimate_kernels() != nullptr && plain(x) && plain(weight) && x.dim() == 2 && weight.dim() == 2 && x.size(0) > 0 &&
         x.size(0) <= kMostRows && weight.is_contiguous() && (bias == nullptr || (plain(*bias) && bias->is_contiguous()));
}

Tensor product(const Tensor& given, const Tensor& weight, const Tensor* bias, bool in_out) {
  auto x = given.contiguous();
  auto in = weight.size(in_out ? 0 : 1), out = weight.size(in_out ? 1 : 0);
  TORCH_CHECK(x.size(1) == in, "product: rows of ", x.size(1), " values and a weight for ", in);
  TORCH_CHECK(bias == nullptr || bias->numel() == out, "product: the bias has not ", out, " values");
  auto y = at::empty({x.size(0), out}, x.options());
  Product p{x.const_data_ptr<float>(), weight.const_data_ptr<float>(), bias ? bias->const_data_ptr<float>() : nullptr,
            y.mutable_data_ptr<float>(), x.size(0), in, out, in_out};
  auto width = collimate_kernels()->panel_width;
  auto grain = std::max<int64_t>(1, kThreadWork / (p.rows * in * width));
  at::parallel_for(0, (out + width - 1) / width, grain, [&](int64_t begin, int64_t end) {
    collimate_kernels()->product(&p, begin, end);
  });
  return y;
}

void check_places(const Tensor& slot, const Tensor& at, const Tensor& keys, int64_t rows) {
  TORCH_CHECK(slot.numel() == rows && at.numel() == rows, "attend: a place in the cache for each of ", rows, " rows");
  for (int64_t r = 0; r < rows; ++r) {
    auto s = slot.const_data_ptr<int64_t>()[r], a = at.const_data_ptr<int64_t>()[r];
    TORCH_CHECK(s >= 0 && s < keys.size(0) && a >= 0 && a < keys.size(1), "attend: no place ", a, " in row ", s);
  }
}

Tensor attend(Tensor* const* qkv, Tensor* const* cache, const Tensor& slot, const Tensor& at, double scale,
              int64_t window) {
  auto q = rows_of(*qkv[0]), k = rows_of(*qkv[1]), v = rows_of(*qkv[2]);
  const Tensor &keys = *cache[0], &values = *cache[1];
  auto rows = q.size(0), heads = q.size(1), head_dim = q.size(2), kv_heads = k.size(1);
  TORCH_CHECK(keys.is_contiguous() && values.is_contiguous() && keys.sizes() == values.sizes(), "attend: the cache");
  TORCH_CHECK(k.sizes() == v.sizes() && k.stride(0) == v.stride(0) && keys.size(2) == kv_heads &&
                  keys.size(3) == head_dim && k.size(2) == head_dim && k.size(0) == rows && heads % kv_heads == 0,
              "attend: shapes");
  check_places(slot, at, keys, rows);
  auto out = at::empty({rows, heads * head_dim}, q.options());
  Step step{q.const_data_ptr<float>(), k.const_data_ptr<float>(), v.const_data_ptr<float>(), q.stride(0), k.stride(0),
            keys.mutable_data_ptr<float>(), values.mutable_data_ptr<float>(), slot.const_data_ptr<int64_t>(),
            at.const_data_ptr<int64_t>(), out.mutable_data_ptr<float>(), keys.size(1), heads, kv_heads, head_dim, window,
            static_cast<float>(scale)};
  // Scores of every head, each with room up to the next full register.
  auto room = heads * (keys.size(1) + 16);
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(room);
    collimate_kernels()->attend(&step, scores.data(), begin, end);
  });
  return out;
}

}  // namespace

extern "C" {

int collimate_decodes(const Tensor* like) { return collimate_kernels() != nullptr && plain(*like); }

int collimate_product(const Tensor* x, const Tensor* weight, const Tensor* bias, int in_out, Tensor** out) {
  return guarded([&] {
    if (served(*x, *weight, bias)) *out = new Tensor(product(*x, *weight, bias, in_out != 0));
  });
}

int collimate_attend(Tensor* const* qkv, Tensor* const* cache, const Tensor* slot, const Tensor* at, double scale,
                     int64_t window, Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(collimate_kernels() != nullptr, "attend: no kernels for this processor");
    for (int i = 0; i < 3; ++i) TORCH_CHECK(plain(*qkv[i]) && qkv[i]->dim() == 3, "attend: queries, keys, values");
    for (int i = 0; i < 2; ++i) TORCH_CHECK(plain(*cache[i]) && cache[i]->dim() == 4, "attend: the cache");
    *out = new Tensor(attend(qkv, cache, *slot, *at, scale, window));
  });
}

int collimate_draw(const Tensor* given, double inverse_temperature, const double* uniforms, int64_t* tokens,
                   float* logprobs) {
  return guarded([&] {
    TORCH_CHECK(collimate_kernels() != nullptr && plain(*given) && given->dim() == 2, "draw: logits");
    auto logits = given->contiguous();
    auto rows = logits.size(0), vocab = logits.size(1);
    Draw draw{logits.const_data_ptr<float>(), uniforms, tokens, logprobs, vocab,
              static_cast<float>(inverse_temperature)};
    at::parallel_for(0, rows, std::max<int64_t>(1, kThreadWork / vocab), [&](int64_t begin, int64_t end) {
      std::vector<double> before(vocab / 512 + 1);
      collimate_kernels()->draw(&draw, before.data(), begin, end);
    });
    for (int64_t r = 0; r < rows; ++r) TORCH_CHECK(tokens[r] >= 0, "the logits of a row are no numbers");
  });
}
}
