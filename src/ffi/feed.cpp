// The second half of a feed-forward part on the CPU in float32: an activation, a gate where there is one, and the product that
// follows. What the activation gave is not kept but made again in the backward pass, in one go with its slope.
//
// Legend: N rows, F values of the activation, D outputs.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels.h"
#include "product.h"
#include "shim.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace collimate {
namespace {

// As `Activation` of feed.rs; the first two are those of kernels.h.
enum Kind { kTanhGelu = kGeluTanh, kSwish = kSilu, kExactGelu = 2, kRelu = 3 };

bool has_loops(int kind) { return collimate_kernels() != nullptr && (kind == kTanhGelu || kind == kSwish); }

template <typename Loop>
void run(Loop loop, const Activated& activated, int64_t count) {
  at::parallel_for(0, count, 1 << 14, [&](int64_t begin, int64_t end) { loop(&activated, begin, end); });
}

const float* data(const Tensor& x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }

Tensor plain(const Tensor& x, int kind) {
  switch (kind) {
    case kTanhGelu: return at::gelu(x, "tanh");
    case kSwish: return at::silu(x);
    case kExactGelu: return at::gelu(x);
    default: return at::relu(x);
  }
}

Tensor plain_back(const Tensor& grad, const Tensor& x, int kind) {
  switch (kind) {
    case kTanhGelu: return at::gelu_backward(grad, x, "tanh");
    case kSwish: return at::silu_backward(grad, x);
    case kExactGelu: return at::gelu_backward(grad, x);
    default: return at::threshold_backward(grad, x, 0);
  }
}

// act(x) [N, F], times the gate.
Tensor values_of(const Tensor& x, const Tensor& gate, int kind) {
  if (!has_loops(kind)) return gate.defined() ? plain(x, kind).mul_(gate) : plain(x, kind);
  auto out = at::empty_like(x);
  run(collimate_kernels()->activate, {data(x), data(gate), out.mutable_data_ptr<float>(), nullptr, nullptr, kind}, x.numel());
  return out;
}

// What `values_of` gives, and the gradients of x and of the gate by `grad`, which is used up.
std::array<Tensor, 3> back(const Tensor& x, const Tensor& gate, Tensor grad, int kind) {
  if (!has_loops(kind)) {
    auto value = plain(x, kind);
    if (!gate.defined()) return {value, plain_back(grad, x, kind), Tensor()};
    auto of_gate = grad * value;
    return {value.mul_(gate), plain_back(grad.mul_(gate), x, kind), of_gate};
  }
  auto value = at::empty_like(x), of_gate = gate.defined() ? at::empty_like(gate) : Tensor();
  Activated activated{data(x), data(gate), value.mutable_data_ptr<float>(), grad.mutable_data_ptr<float>(),
                      gate.defined() ? of_gate.mutable_data_ptr<float>() : nullptr, kind};
  run(collimate_kernels()->activate_back, activated, x.numel());
  return {value, grad, of_gate};
}

struct Feed : torch::autograd::Function<Feed> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& optional_gate,
                        const Tensor& weight, const std::optional<Tensor>& optional_bias, bool in_out, int64_t kind) {
    Tensor gate = optional_gate.value_or(Tensor()), bias = optional_bias.value_or(Tensor());
    ctx->save_for_backward({x, gate, weight});
    ctx->saved_data["in_out"] = in_out;
    ctx->saved_data["kind"] = kind;
    ctx->saved_data["bias"] = bias.defined() && bias.requires_grad();
    return linear(values_of(x, gate, static_cast<int>(kind)), weight, bias, in_out);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto &x = saved[0], &gate = saved[1], &weight = saved[2];
    bool in_out = ctx->saved_data["in_out"].toBool();
    auto kind = static_cast<int>(ctx->saved_data["kind"].toInt());
    auto g = grads[0].contiguous();
    auto [value, of_x, of_gate] = back(x, gate, linear_back(g, weight, in_out), kind);
    Tensor of_weight, of_bias;
    if (weight.requires_grad()) of_weight = linear_weight_back(g, value, in_out);
    if (ctx->saved_data["bias"].toBool()) of_bias = g.sum(0);
    return {of_x, of_gate, of_weight, of_bias, Tensor(), Tensor()};
  }
};

bool plain_floats(const Tensor* x) {
  return x == nullptr || (x->is_cpu() && x->scalar_type() == at::kFloat && x->is_contiguous());
}

}  // namespace
}  // namespace collimate

extern "C" {

// Whether the functions below serve tensors like this one.
int collimate_feeds(const Tensor* like) { return collimate::plain_floats(like); }

// act(x [N, F]), times `gate [N, F]` where there is one.
int collimate_activated(const Tensor* x, const Tensor* gate, int kind, Tensor** out) {
  return collimate::guarded([&] {
    TORCH_CHECK(collimate::plain_floats(x) && collimate::plain_floats(gate), "activated: float32 in order on the CPU");
    TORCH_CHECK(gate == nullptr || gate->sizes() == x->sizes(), "activated: the gate differs in shape");
    *out = new Tensor(collimate::values_of(*x, gate == nullptr ? Tensor() : *gate, kind));
  });
}

// That times a weight, [F, D] where `in_out` says so and else [D, F], plus a bias [D] where there is one.
int collimate_feed(const Tensor* x, const Tensor* gate, const Tensor* weight, const Tensor* bias, int in_out, int kind,
                   Tensor** out) {
  return collimate::guarded([&] {
    for (auto* each : {x, gate, weight, bias}) {
      TORCH_CHECK(collimate::plain_floats(each), "feed: float32 in order on the CPU");
    }
    TORCH_CHECK(x->dim() == 2 && weight->dim() == 2, "feed: rows [N, F] and a weight");
    TORCH_CHECK(gate == nullptr || gate->sizes() == x->sizes(), "feed: the gate differs in shape");
    auto given = [](const Tensor* t) { return t == nullptr ? std::nullopt : std::optional<Tensor>(*t); };
    *out = new Tensor(collimate::Feed::apply(*x, given(gate), *weight, given(bias), in_out != 0, int64_t{kind}));
  });
}
}
