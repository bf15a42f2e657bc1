// Causal attention on the CPU straight over the flat list of tokens: rows of one length that lie beside each other are a
// view, others are gathered into a small grid with rows of about their length. No index operators, whose backward fills and
// adds whole tensors, and hardly any padding.
//
// Legend: N flat tokens, b rows of a group, W its width, H query heads, K key/value heads, d a head's width.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "shim.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace collimate {
namespace {

// Tokens beside each other. A token that stands in several rows is owned by the first: its output is taken from there.
struct Segment {
  int64_t start, length;
  bool owned;
};

struct Group {
  int64_t width;
  std::vector<std::vector<Segment>> rows;

  // Whether the rows are one stretch of the flat list, all of them as wide as the group.
  bool dense() const {
    int64_t next = rows[0][0].start;
    for (auto& row : rows) {
      if (row.size() != 1 || row[0].start != next || row[0].length != width) return false;
      next += width;
    }
    return true;
  }
};

struct Plan : torch::CustomClassHolder {
  std::vector<Group> groups;
  bool shares = false;

  // [W, W]: 0 where a query sees a key, itself and the `window - 1` before it, else minus infinity. One for all layers.
  Tensor band(int64_t width, int64_t window, at::TensorOptions options) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto& mask = bands_[{width, window, static_cast<int>(c10::typeMetaToScalarType(options.dtype()))}];
    if (!mask.defined()) {
      auto sees = at::ones({width, width}, options.dtype(at::kBool)).tril_(0).triu_(1 - window);
      mask = at::zeros({width, width}, options).masked_fill_(sees.logical_not(), -std::numeric_limits<double>::infinity());
    }
    return mask;
  }

 private:
  std::mutex mutex_;
  std::map<std::tuple<int64_t, int64_t, int>, Tensor> bands_;
};

// Numbers of a layer.
struct Geometry {
  int64_t heads, kv_heads;
  double scale;
  int64_t window;  // 0: none
};

// The rows of x [N, h, d] as [b, W, h, d] where they lie, or nothing where they have to be gathered.
std::optional<Tensor> in_place(const Tensor& x, const Group& group, bool owned) {
  if (!group.dense()) return std::nullopt;
  for (auto& row : group.rows) {
    if (owned && !row[0].owned) return std::nullopt;
  }
  auto rows = static_cast<int64_t>(group.rows.size());
  return x.narrow(0, group.rows[0][0].start, rows * group.width).unflatten(0, {rows, group.width});
}

// x [N, h, d], tokens apart by any stride, to [b, W, h, d]; zeros where a row is shorter, and, where `owned`, at tokens that
// the row does not own.
Tensor gathered(const Tensor& x, const Group& group, bool owned) {
  if (auto view = in_place(x, group, owned)) return *view;
  auto rows = static_cast<int64_t>(group.rows.size());
  auto out = at::empty({rows, group.width, x.size(1), x.size(2)}, x.options());
  auto size = static_cast<size_t>(x.size(1) * x.size(2)) * x.element_size();
  auto step = static_cast<size_t>(x.stride(0)) * x.element_size(), width = static_cast<size_t>(group.width) * size;
  auto* from = static_cast<const char*>(x.const_data_ptr());
  auto* to = static_cast<char*>(out.data_ptr());
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) {
      auto *at = to + r * width, *row_end = at + width;
      for (auto& segment : group.rows[r]) {
        for (int64_t t = 0; t < segment.length; ++t, at += size) {
          if (!owned || segment.owned) {
            std::memcpy(at, from + static_cast<size_t>(segment.start + t) * step, size);
          } else {
            std::memset(at, 0, size);
          }
        }
      }
      std::memset(at, 0, static_cast<size_t>(row_end - at));
    }
  });
  return out;
}

// Values [begin, end) of a group's tokens from y [b, W, h, d], contiguous, added to those of x, tokens `step` apart.
template <typename T>
void add_values(T* to, const T* from, int64_t step, int64_t values, const Group& group, int64_t begin, int64_t end) {
  for (size_t r = 0; r < group.rows.size(); ++r) {
    auto* at = from + static_cast<int64_t>(r) * group.width * values;
    for (auto& segment : group.rows[r]) {
      for (int64_t t = 0; t < segment.length; ++t, at += values) {
        auto* place = to + (segment.start + t) * step;
        for (int64_t i = begin; i < end; ++i) place[i] += at[i];
      }
    }
  }
}

// y [b, W, h, d] into x [N, h, d]: owned tokens are written and others left out, or, where `add`, all are added.
void put(const Tensor& x, const Tensor& given, const Group& group, bool add) {
  if (auto view = in_place(x, group, !add)) {
    add ? view->add_(given) : view->copy_(given);
    return;
  }
  auto y = given.contiguous();
  auto values = x.size(1) * x.size(2), step = x.stride(0), rows = static_cast<int64_t>(group.rows.size());
  if (add) {
    // Threads share out the values of a token, not rows: a token that stands in several rows gets their sum in one order.
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "put", [&] {
      auto* to = x.data_ptr<scalar_t>();
      auto* from = y.const_data_ptr<scalar_t>();
      at::parallel_for(0, values, std::max<int64_t>(64, at::internal::GRAIN_SIZE / (rows * group.width)),
                       [&](int64_t begin, int64_t end) { add_values(to, from, step, values, group, begin, end); });
    });
    return;
  }
  auto size = static_cast<size_t>(values) * x.element_size(), apart = static_cast<size_t>(step) * x.element_size();
  auto* to = static_cast<char*>(x.data_ptr());
  auto* from = static_cast<const char*>(y.const_data_ptr());
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      auto* at = from + static_cast<size_t>(r * group.width) * size;
      for (auto& segment : group.rows[static_cast<size_t>(r)]) {
        for (int64_t t = 0; t < segment.length; ++t, at += size) {
          if (segment.owned) std::memcpy(to + static_cast<size_t>(segment.start + t) * apart, at, size);
        }
      }
    }
  });
}

// [b, W, K, d] to [b, H, W, d]: each key/value head for its group of query heads.
Tensor for_queries(const Tensor& x, const Geometry& g) {
  auto repeat = g.heads / g.kv_heads;
  if (repeat == 1) return x.transpose(1, 2);
  return x.unsqueeze(3).expand({-1, -1, -1, repeat, -1}).flatten(2, 3).transpose(1, 2);
}

// [b, H, W, d] to [b, W, K, d]: gradients of a group's query heads are added up.
Tensor of_heads(const Tensor& x, int64_t heads) {
  auto y = x.transpose(1, 2);
  return y.size(2) == heads ? y : y.unflatten(2, {heads, -1}).sum({3});
}

std::optional<Tensor> mask_of(Plan& plan, const Group& group, const Geometry& g, const Tensor& x) {
  if (g.window == 0 || g.window >= group.width) return std::nullopt;
  return plan.band(group.width, g.window, x.options());
}

// Queries, keys, values [N, h, d] of one tensor [N, 3, H, d] or of three.
std::array<Tensor, 3> parts_of(const Tensor& first, const Tensor& k, const Tensor& v) {
  if (k.defined()) return {first, k, v};
  return {first.select(1, 0), first.select(1, 1), first.select(1, 2)};
}

struct RowAttention : torch::autograd::Function<RowAttention> {
  static Tensor forward(AutogradContext* ctx, const Tensor& first, const std::optional<Tensor>& others_k,
                        const std::optional<Tensor>& others_v, const c10::intrusive_ptr<Plan>& plan, const Geometry& g,
                        bool trains) {
    Tensor k = others_k.value_or(Tensor()), v = others_v.value_or(Tensor());
    auto [q, keys, values] = parts_of(first, k, v);
    auto out = at::empty({q.size(0), q.size(1), q.size(2)}, q.options());
    variable_list saved{first, k, v, out};
    for (auto& group : plan->groups) {
      auto mask = mask_of(*plan, group, g, q);
      auto [o, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
          gathered(q, group, false).transpose(1, 2), for_queries(gathered(keys, group, false), g),
          for_queries(gathered(values, group, false), g), 0.0, !mask.has_value(), mask, g.scale);
      put(out, o.transpose(1, 2), group, false);
      saved.push_back(lse);
    }
    if (trains) {
      ctx->save_for_backward(saved);
      ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
      ctx->saved_data["numbers"] = std::vector<int64_t>{g.heads, g.kv_heads, g.window};
      ctx->saved_data["scale"] = g.scale;
    }
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto plan = c10::static_intrusive_pointer_cast<Plan>(ctx->saved_data["plan"].toCapsule());
    auto numbers = ctx->saved_data["numbers"].toIntVector();
    Geometry g{numbers[0], numbers[1], ctx->saved_data["scale"].toDouble(), numbers[2]};
    auto [q, k, v] = parts_of(saved[0], saved[1], saved[2]);
    auto out = saved[3], dout = grads[0].contiguous();
    // Tokens of several rows collect from all of them; else every token is written once.
    bool add = plan->shares;
    auto like = [add](const Tensor& x) {
      if (!x.defined()) return Tensor();
      return add ? at::zeros(x.sizes(), x.options()) : at::empty(x.sizes(), x.options());
    };
    Tensor d_first = like(saved[0]), d_k = like(saved[1]), d_v = like(saved[2]);
    auto [dq, dk, dv] = parts_of(d_first, d_k, d_v);
    for (size_t i = 0; i < plan->groups.size(); ++i) {
      auto& group = plan->groups[i];
      auto mask = mask_of(*plan, group, g, q);
      auto [gq, gk, gv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          gathered(dout, group, true).transpose(1, 2), gathered(q, group, false).transpose(1, 2),
          for_queries(gathered(k, group, false), g), for_queries(gathered(v, group, false), g),
          gathered(out, group, false).transpose(1, 2), saved[4 + i], 0.0, !mask.has_value(), mask, g.scale);
      put(dq, of_heads(gq, g.heads), group, add);
      put(dk, of_heads(gk, g.kv_heads), group, add);
      put(dv, of_heads(gv, g.kv_heads), group, add);
    }
    return {d_first, d_k, d_v, Tensor(), Tensor(), Tensor()};
  }
};

c10::intrusive_ptr<Plan> parsed(const int64_t* numbers, size_t count) {
  auto plan = c10::make_intrusive<Plan>();
  size_t at = 0;
  auto next = [&] {
    TORCH_CHECK(at < count, "attention: a plan is cut short");
    return numbers[at++];
  };
  while (at < count) {
    Group group{next(), {}};
    group.rows.resize(static_cast<size_t>(next()));
    for (auto& row : group.rows) {
      row.resize(static_cast<size_t>(next()));
      for (auto& segment : row) {
        segment = {next(), next(), next() != 0};
        plan->shares = plan->shares || !segment.owned;
      }
    }
    TORCH_CHECK(!group.rows.empty(), "attention: a group without rows");
    plan->groups.push_back(std::move(group));
  }
  return plan;
}

}  // namespace
}  // namespace collimate

extern "C" {

// A plan from groups: width, rows, and for each row the number of its segments and of each start, length, owned.
int collimate_plan(const int64_t* numbers, size_t count, void** out) {
  return collimate::guarded([&] { *out = new c10::intrusive_ptr(collimate::parsed(numbers, count)); });
}

void collimate_plan_free(void* plan) { delete static_cast<c10::intrusive_ptr<collimate::Plan>*>(plan); }

// `first [N, 3, H, d]` alone, or queries [N, H, d] with `k` and `v [N, K, d]`; gives [N, H, d].
int collimate_attention(const void* plan, const Tensor* first, const Tensor* k, const Tensor* v, int64_t heads,
                        int64_t kv_heads, double scale, int64_t window, Tensor** out) {
  return collimate::guarded([&] {
    auto& shared = *static_cast<const c10::intrusive_ptr<collimate::Plan>*>(plan);
    auto given = [](const Tensor* x) { return x == nullptr ? std::nullopt : std::optional<Tensor>(x->contiguous()); };
    auto keys = given(k), values = given(v);
    bool trains = at::GradMode::is_enabled() && (first->requires_grad() || (k != nullptr && k->requires_grad()));
    collimate::Geometry geometry{heads, kv_heads, scale, window};
    *out = new Tensor(collimate::RowAttention::apply(first->contiguous(), keys, values, shared, geometry, trains));
  });
}
}
