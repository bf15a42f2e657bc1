// Log-probs of target tokens from hidden states and the head's weight, and their gradients, without ever holding logits of
// all rows: they are made in chunks of rows. On the CPU one pass over a row gives everything that is asked of it.
//
// Legend: M rows, D width, V vocabulary, m rows of a chunk.
#include "head.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "product.h"
#include "rows.h"
#include "shim.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace collimate {
namespace {

Tensor as_kind(const Tensor& x, at::ScalarType kind) { return x.scalar_type() == kind ? x : x.to(kind); }

// What the passes need besides hidden states.
struct Head {
  Tensor weight;   // [V, D] in the products' kind
  double scale;    // of logits: 1 / temperature
  int64_t chunk;   // rows at once

  // [m, V] float32, not scaled.
  Tensor logits(const Tensor& hidden) const {
    return as_kind(product(as_kind(hidden, weight.scalar_type()), weight.t()), at::kFloat);
  }
};

// Statistics of rows of logits: log-prob of the target, log of the normaliser, entropy, whether the target is the
// largest, the largest magnitude.
struct Stats {
  Tensor logprob, lse, entropy, correct, size;
};

// The same on any device, of ATen's operators; `logits` is overwritten.
void stats_anywhere(Tensor logits, const Tensor& targets, double scale, bool figures, const Stats& out) {
  if (scale != 1.0) logits.mul_(scale);
  auto lse = at::logsumexp(logits, {1});
  out.lse.copy_(lse);
  out.size.copy_(logits.abs().amax({1}));
  out.logprob.copy_(logits.gather(1, targets.unsqueeze(1)).squeeze(1).sub_(lse));
  if (!figures) return;
  out.correct.copy_(logits.argmax(1).eq(targets));
  auto logp = logits.sub_(lse.unsqueeze(1));
  out.entropy.copy_(at::mul(logp, logp.exp()).sum({1}).neg_());
}

void stats(Tensor& logits, const Tensor& targets, double scale, bool figures, const Stats& out) {
  if (!logits.is_cpu()) return stats_anywhere(logits.clone(), targets, scale, figures, out);
  auto vocab = logits.size(1);
  auto* x = logits.const_data_ptr<float>();
  auto* target = targets.const_data_ptr<int64_t>();
  auto *logprob = out.logprob.data_ptr<float>(), *lse = out.lse.data_ptr<float>();
  auto *entropy = out.entropy.data_ptr<float>(), *correct = out.correct.data_ptr<float>();
  auto* size = out.size.data_ptr<float>();
  at::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      auto found = row_stats(x + row * vocab, vocab, target[row], static_cast<float>(scale), figures);
      logprob[row] = found.logprob;
      lse[row] = found.lse;
      entropy[row] = found.entropy;
      correct[row] = found.correct;
      size[row] = found.size;
    }
  });
}

// Logits become gradients in place: of g log pi(target), with respect to unscaled logits.
void gradients(Tensor& logits, const Tensor& targets, double scale, const Tensor& lse, const Tensor& g) {
  if (!logits.is_cpu()) {
    logits.mul_(scale).sub_(lse.unsqueeze(1)).exp_();
    auto weight = g.mul(-scale).unsqueeze(1);
    logits.mul_(weight).scatter_add_(1, targets.unsqueeze(1), weight.neg());
    return;
  }
  auto vocab = logits.size(1);
  auto* x = logits.data_ptr<float>();
  auto* target = targets.const_data_ptr<int64_t>();
  auto *norm = lse.const_data_ptr<float>(), *upstream = g.const_data_ptr<float>();
  at::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      row_gradient(x + row * vocab, vocab, target[row], static_cast<float>(scale), norm[row], upstream[row]);
    }
  });
}

// Sums of a chunk's contributions to the gradients of hidden states and weight.
struct Sums {
  Tensor hidden;  // [M, D], where it is wanted
  Tensor weight;  // [V, D], where it is wanted; undefined before the first chunk

  void add(const Head& head, Tensor& dlogits, const Tensor& rows, int64_t start) {
    auto d = as_kind(dlogits, head.weight.scalar_type());
    if (hidden.defined()) hidden.narrow(0, start, rows.size(0)).copy_(product(d, head.weight));
    if (!wants_weight) return;
    auto x = as_kind(rows, head.weight.scalar_type());
    if (weight.defined() && weight.scalar_type() == d.scalar_type()) {
      add_product(weight, d.t(), x);
    } else if (weight.defined()) {
      weight.add_(product(d.t(), x));
    } else {
      weight = as_kind(product(d.t(), x), at::kFloat);
    }
  }

  bool wants_weight = false;
};

// The weight's gradient so far, to be added to: its own buffer where there is one.
Sums begin_sums(const Tensor& hidden, bool wants_hidden, const Tensor& weight, bool wants_weight) {
  Sums sums;
  sums.wants_weight = wants_weight;
  if (wants_hidden) sums.hidden = at::empty_like(hidden);
  if (wants_weight && weight.grad().defined()) sums.weight = weight.grad();
  return sums;
}

Head head_of(const Tensor& weight, int64_t rows, const HeadOptions& options) {
  auto vocab = weight.size(0);
  auto fit = std::max<int64_t>(1, options.budget / (vocab * static_cast<int64_t>(sizeof(float))));
  // Chunks of about one size.
  auto chunks = std::max<int64_t>(1, (rows + fit - 1) / fit);
  return {as_kind(weight.detach(), options.compute), options.scale, std::max<int64_t>(1, (rows + chunks - 1) / chunks)};
}

void save_options(AutogradContext* ctx, const HeadOptions& options) {
  ctx->saved_data["scale"] = options.scale;
  ctx->saved_data["budget"] = options.budget;
  ctx->saved_data["compute"] = static_cast<int64_t>(options.compute);
}

HeadOptions saved_options(AutogradContext* ctx) {
  return {ctx->saved_data["scale"].toDouble(), ctx->saved_data["budget"].toInt(),
          static_cast<at::ScalarType>(ctx->saved_data["compute"].toInt()), false};
}

Stats empty_stats(const Tensor& hidden) {
  auto make = [&] { return at::zeros({hidden.size(0)}, hidden.options().dtype(at::kFloat)); };
  return {make(), make(), make(), make(), make()};
}

Stats part_of(const Stats& all, int64_t start, int64_t count) {
  auto part = [&](const Tensor& x) { return x.narrow(0, start, count); };
  return {part(all.logprob), part(all.lse), part(all.entropy), part(all.correct), part(all.size)};
}

}  // namespace

// Outputs log-probs, entropies, whether the target is the largest, the largest magnitude of a logit, all [M]; only the
// first has a gradient.
struct TokenLogprobs : torch::autograd::Function<TokenLogprobs> {
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight, const Tensor& targets,
                               const HeadOptions& options) {
    auto rows = hidden.size(0);
    auto head = head_of(weight, rows, options);
    auto all = empty_stats(hidden);
    // Kept for backward where they fit in the budget all together; else made again there, chunk by chunk.
    Tensor kept;
    for (int64_t start = 0; start < rows; start += head.chunk) {
      auto count = std::min(head.chunk, rows - start);
      auto part = [&](const Tensor& x) { return x.narrow(0, start, count); };
      auto logits = head.logits(part(hidden));
      stats(logits, part(targets), head.scale, options.figures, part_of(all, start, count));
      if (count == rows) kept = logits;
    }
    ctx->save_for_backward({hidden, targets, all.lse, kept});
    ctx->saved_data["weight"] = weight;
    save_options(ctx, options);
    ctx->mark_non_differentiable({all.entropy, all.correct, all.size});
    return {all.logprob, all.entropy, all.correct, all.size};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto hidden = saved[0], targets = saved[1], lse = saved[2], kept = saved[3];
    auto weight = ctx->saved_data["weight"].toTensor();
    auto head = head_of(weight, hidden.size(0), saved_options(ctx));
    auto g = grads[0].contiguous();
    auto sums = begin_sums(hidden, ctx->needs_input_grad(0), weight, ctx->needs_input_grad(1));
    for (int64_t start = 0; start < hidden.size(0); start += head.chunk) {
      auto count = std::min(head.chunk, hidden.size(0) - start);
      auto part = [&](const Tensor& x) { return x.narrow(0, start, count); };
      auto rows = part(hidden);
      auto logits = kept.defined() ? kept : head.logits(rows);
      gradients(logits, part(targets), head.scale, part(lse), part(g));
      sums.add(head, logits, rows, start);
    }
    if (sums.wants_weight) weight.mutable_grad() = sums.weight;
    return {sums.hidden, Tensor(), Tensor(), Tensor()};
  }
};

// The sum of log-probs, whose gradient is known before backward up to a factor: both gradients are made with the logits at
// hand, which are then gone. Outputs the sum, the sum of entropies, the count of largest targets, the largest magnitude.
struct SumLogprobs : torch::autograd::Function<SumLogprobs> {
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight, const Tensor& targets,
                               const HeadOptions& options) {
    auto rows = hidden.size(0);
    auto head = head_of(weight, rows, options);
    auto all = empty_stats(hidden);
    auto one = at::ones({std::min(head.chunk, rows)}, hidden.options().dtype(at::kFloat));
    Sums sums;
    sums.wants_weight = weight.requires_grad();
    if (hidden.requires_grad()) sums.hidden = at::empty_like(hidden);
    for (int64_t start = 0; start < rows; start += head.chunk) {
      auto count = std::min(head.chunk, rows - start);
      auto part = [&](const Tensor& x) { return x.narrow(0, start, count); };
      auto inputs = part(hidden);
      auto logits = head.logits(inputs);
      stats(logits, part(targets), head.scale, options.figures, part_of(all, start, count));
      if (!sums.hidden.defined() && !sums.wants_weight) continue;
      gradients(logits, part(targets), head.scale, part(all.lse), one.narrow(0, 0, count));
      sums.add(head, logits, inputs, start);
    }
    ctx->saved_data["weight"] = weight;
    ctx->save_for_backward({sums.hidden, sums.weight});
    auto entropy = all.entropy.sum(), correct = all.correct.sum(), size = all.size.amax();
    ctx->mark_non_differentiable({entropy, correct, size});
    return {all.logprob.sum(), entropy, correct, size};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    auto weight = ctx->saved_data["weight"].toTensor();
    auto g = grads[0];
    if (saved[1].defined()) {
      accumulate(
          weight, [&] { return saved[1].mul_(g); }, [&](Tensor& grad) { grad.addcmul_(saved[1], g); });
    }
    return {saved[0].defined() ? saved[0].mul_(g) : Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

namespace {

// Without gradients: nothing is kept.
variable_list plain(const Tensor& hidden, const Tensor& weight, const Tensor& targets, const HeadOptions& options) {
  auto rows = hidden.size(0);
  auto head = head_of(weight, rows, options);
  auto all = empty_stats(hidden);
  for (int64_t start = 0; start < rows; start += head.chunk) {
    auto count = std::min(head.chunk, rows - start);
    auto logits = head.logits(hidden.narrow(0, start, count));
    stats(logits, targets.narrow(0, start, count), head.scale, options.figures, part_of(all, start, count));
  }
  return {all.logprob, all.entropy, all.correct, all.size};
}

void check(const Tensor& hidden, const Tensor& weight, const Tensor& targets) {
  TORCH_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1), "head: hidden states ",
              hidden.sizes(), " do not fit the weight ", weight.sizes());
  TORCH_CHECK(targets.dim() == 1 && targets.scalar_type() == at::kLong && targets.size(0) == hidden.size(0),
              "head: as many int64 targets as hidden states are needed");
  TORCH_CHECK(!weight.requires_grad() || weight.is_leaf(), "head: the weight is no leaf");
}

}  // namespace
}  // namespace collimate

extern "C" {

// Log-probs, entropies, correctness and logits' largest magnitude [M] of `targets`, or, where `sum`, the sums of the first
// three and the largest of the last; all but the first without gradient.
int collimate_head(const Tensor* hidden, const Tensor* weight, const Tensor* targets, double scale, int64_t budget,
                   int compute, int figures, int sum, Tensor** out) {
  return collimate::guarded([&] {
    collimate::check(*hidden, *weight, *targets);
    collimate::HeadOptions options{scale, budget, static_cast<at::ScalarType>(compute), figures != 0};
    bool trains = at::GradMode::is_enabled() && (hidden->requires_grad() || weight->requires_grad());
    auto input = hidden->contiguous();
    variable_list found;
    if (!trains) {
      c10::NoGradGuard guard;
      found = collimate::plain(input, *weight, *targets, options);
      if (sum != 0) {
        for (size_t i = 0; i < 3; ++i) found[i] = found[i].sum();
        found[3] = found[3].amax();
      }
    } else if (sum != 0) {
      found = collimate::SumLogprobs::apply(input, *weight, *targets, options);
    } else {
      found = collimate::TokenLogprobs::apply(input, *weight, *targets, options);
    }
    for (size_t i = 0; i < 4; ++i) out[i] = new Tensor(found[i]);
  });
}
}
