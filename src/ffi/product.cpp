// Which way a matrix product takes, and the blocks and threads of the one on the matrix unit (`split.cpp`).
//
// Legend: M rows, K terms, N columns.
#include "product.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "shim.h"
#include "split.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace collimate {
namespace {

// Terms whose sums stay in the unit's registers; more are added in several passes.
constexpr int64_t kTerms = 1024;
// Columns whose pieces are kept at one time: some 13 MB at most.
constexpr int64_t kColumns = 2048;
// Bytes of rows' pieces that stay in a core's second-level cache while those columns pass by.
constexpr int64_t kResident = 800'000;
// Below this many of rows, terms or columns making the pieces costs more than they bring.
constexpr int64_t kLeast = 96;

// The unit is there, and neither libtorch's own switch (ATEN_CPU_CAPABILITY) nor COLLIMATE_PRODUCTS=libtorch rules it out.
bool has_unit() {
#ifdef COLLIMATE_SPLIT
  static const bool found = [] {
    const char* wanted = std::getenv("COLLIMATE_PRODUCTS");
    if (wanted != nullptr && std::strcmp(wanted, "libtorch") == 0) return false;
    return at::get_cpu_capability().starts_with("AVX512") && collimate_split_works() != 0;
  }();
  return found;
#else
  return false;
#endif
}

bool fits(const Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.dim() == 2 && x.layout() == at::kStrided &&
         (x.stride(0) == 1 || x.stride(1) == 1) && std::min(x.size(0), x.size(1)) >= kLeast;
}

bool splits(const Tensor& a, const Tensor& b) { return has_unit() && fits(a) && fits(b) && a.size(1) == b.size(0); }

// Parts of about one size, none above `most`, whole panels but for the last.
int64_t part_of(int64_t count, int64_t most) {
  auto parts = (count + most - 1) / most;
  return split_panels((count + parts - 1) / parts) * kSplitPanel;
}

struct Range {
  int64_t begin, count;
};

template <typename F>
void in_parts(int64_t count, int64_t part, F&& body) {
  for (int64_t begin = 0; begin < count; begin += part) body(Range{begin, std::min(part, count - begin)});
}

// Memory for pieces, at a multiple of a page.
struct Room {
  Tensor memory;
  explicit Room(int64_t bytes) : memory(at::empty({bytes + 4096}, at::kByte)) {}
  char* data() const {
    return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.mutable_data_ptr()) + 4095) / 4096 * 4096);
  }
};

#ifdef COLLIMATE_SPLIT
void pack(const Tensor& x, bool left, Range lines, Range terms, char* to) {
  // The right side's lines are its columns.
  auto line_stride = x.stride(left ? 0 : 1), term_stride = x.stride(left ? 1 : 0);
  auto in_order = term_stride == 1;
  SplitLines from{x.const_data_ptr<float>() + lines.begin * line_stride + terms.begin * term_stride,
                  in_order ? line_stride : term_stride, in_order, left, lines.count, terms.count, to};
  at::parallel_for(0, split_panels(lines.count), 1,
                   [&](int64_t begin, int64_t end) { collimate_split_pack(&from, begin, end); });
}

void split_product(Tensor& y, const Tensor& a, const Tensor& b, const float* bias, bool add) {
  auto columns = part_of(b.size(1), kColumns), terms = part_of(a.size(1), kTerms), bytes = split_bytes(terms);
  auto rows = part_of(a.size(0), std::max<int64_t>(1, kResident / bytes) * kSplitPanel);
  Room left(split_panels(rows) * bytes), right(split_panels(columns) * bytes);
  in_parts(b.size(1), columns, [&](Range n) {
    in_parts(a.size(1), terms, [&](Range k) {
      pack(b, false, n, k, right.data());
      bool first = k.begin == 0;
      in_parts(a.size(0), rows, [&](Range m) {
        pack(a, true, m, k, left.data());
        SplitBlock block{left.data(), right.data(), first && bias ? bias + n.begin : nullptr,
                         y.mutable_data_ptr<float>() + m.begin * y.stride(0) + n.begin, y.stride(0), m.count, n.count,
                         k.count, add || !first};
        at::parallel_for(0, split_panels(n.count), 1,
                         [&](int64_t begin, int64_t end) { collimate_split_multiply(&block, begin, end); });
      });
    });
  });
}
#else
void split_product(Tensor&, const Tensor&, const Tensor&, const float*, bool) {
  TORCH_CHECK(false, "split_product: built without the matrix unit");
}
#endif

}  // namespace

Tensor product(const Tensor& a, const Tensor& b, const Tensor& bias) {
  bool usual = !bias.defined() || (bias.is_contiguous() && bias.scalar_type() == at::kFloat && bias.numel() == b.size(1));
  if (!splits(a, b) || !usual) return bias.defined() ? at::addmm(bias, a, b) : at::mm(a, b);
  auto y = at::empty({a.size(0), b.size(1)}, a.options());
  split_product(y, a, b, bias.defined() ? bias.const_data_ptr<float>() : nullptr, false);
  return y;
}

void add_product(Tensor& y, const Tensor& a, const Tensor& b) {
  if (!splits(a, b) || y.scalar_type() != at::kFloat || y.stride(1) != 1) {
    y.addmm_(a, b);
    return;
  }
  TORCH_CHECK(y.size(0) == a.size(0) && y.size(1) == b.size(1), "add_product: ", y.sizes(), " for ", a.sizes(), b.sizes());
  split_product(y, a, b, nullptr, true);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, bool in_out) {
  return product(x, in_out ? weight : weight.t(), bias);
}

Tensor linear_back(const Tensor& grad, const Tensor& weight, bool in_out) {
  return product(grad, in_out ? weight.t() : weight);
}

Tensor linear_weight_back(const Tensor& grad, const Tensor& x, bool in_out) {
  return in_out ? product(x.t(), grad) : product(grad.t(), x);
}

namespace {

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& optional_bias,
                        bool in_out) {
    Tensor bias = optional_bias.value_or(Tensor());
    ctx->save_for_backward({x, weight});
    ctx->saved_data["in_out"] = in_out;
    ctx->saved_data["bias"] = bias.defined() && bias.requires_grad();
    ctx->saved_data["x"] = x.requires_grad();
    return linear(x, weight, bias, in_out);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    bool in_out = ctx->saved_data["in_out"].toBool();
    auto g = grads[0].contiguous();
    Tensor of_x, of_weight, of_bias;
    if (ctx->saved_data["x"].toBool()) of_x = linear_back(g, saved[1], in_out);
    if (saved[1].requires_grad()) of_weight = linear_weight_back(g, saved[0], in_out);
    if (ctx->saved_data["bias"].toBool()) of_bias = g.sum(0);
    return {of_x, of_weight, of_bias, Tensor()};
  }
};

}  // namespace
}  // namespace collimate

extern "C" {

// Whether large products in float32 are split over the processor's bfloat16 unit.
int collimate_splits() { return collimate::has_unit(); }

// x [M, in] by a weight, [in, out] where `in_out` and else [out, in], plus a bias [out] where there is one.
int collimate_linear(const Tensor* x, const Tensor* weight, const Tensor* bias, int in_out, Tensor** out) {
  return collimate::guarded([&] {
    TORCH_CHECK(x->dim() == 2 && weight->dim() == 2, "linear: rows [M, in] and a weight");
    auto given = bias == nullptr ? std::nullopt : std::optional<Tensor>(*bias);
    *out = new Tensor(collimate::Linear::apply(*x, *weight, given, in_out != 0));
  });
}
}
