// Rows of a table, and of hidden states. Backward adds into the table's gradient: of a tied embedding the head has made one
// already, and a second buffer of the vocabulary's size is neither filled nor added.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "shim.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace collimate {
namespace {

struct Lookup : torch::autograd::Function<Lookup> {
  static Tensor forward(AutogradContext* ctx, const Tensor& table, const Tensor& ids) {
    ctx->save_for_backward({ids});
    ctx->saved_data["table"] = table;
    return at::embedding(table, ids);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto ids = ctx->get_saved_variables()[0];
    auto table = ctx->saved_data["table"].toTensor();
    auto g = grads[0].contiguous();
    auto dense = [&] { return at::embedding_dense_backward(g, ids, table.size(0), -1, false); };
    accumulate(table, dense, [&](Tensor& grad) {
      // On CUDA index_add_ adds in any order: runs would not repeat.
      if (grad.is_cpu()) {
        grad.index_add_(0, ids, g);
      } else {
        grad.add_(dense());
      }
    });
    return {Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace collimate

extern "C" {

int collimate_embedding(const Tensor* table, const Tensor* ids, Tensor** out) {
  return collimate::guarded([&] {
    TORCH_CHECK(table->dim() == 2 && ids->dim() == 1, "embedding: a table [V, D] and ids [N] are needed");
    TORCH_CHECK(!table->requires_grad() || table->is_leaf(), "embedding: the table is no leaf");
    bool trains = at::GradMode::is_enabled() && table->requires_grad();
    *out = new Tensor(trains ? collimate::Lookup::apply(*table, *ids) : at::embedding(*table, *ids));
  });
}
}
