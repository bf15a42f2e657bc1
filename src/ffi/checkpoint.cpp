// Activation checkpointing: a part of a graph that keeps its input alone. What it computed is computed again in the backward
// pass, by a function of the caller's, and the gradients inside it go straight to their leaves.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>
#include <stdexcept>

#include "shim.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace collimate {
namespace {

// Runs the part on its input; 0 and a new tensor, or 1 and a message in last_error.
using Run = int (*)(void* owner, const Tensor* x, Tensor** out);
using Release = void (*)(void* owner);

// The caller's function, for as long as the graph lives.
struct Part : torch::CustomClassHolder {
  Part(void* owner, Run run, Release release) : owner(owner), run(run), release(release) {}
  ~Part() override { release(owner); }

  Tensor operator()(const Tensor& x) const {
    Tensor* out = nullptr;
    if (run(owner, &x, &out) != 0) throw std::runtime_error(last_error());
    Tensor y = std::move(*out);
    delete out;
    return y;
  }

  void* owner;
  Run run;
  Release release;
};

Tensor state_of(at::Generator generator) {
  std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

void set_state(at::Generator generator, const Tensor& state) {
  std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

// While it lives, draws are those that followed `then`; afterwards they go on where they were.
class Replay {
 public:
  Replay(const Tensor& then, at::Device device) {
    if (!then.defined()) return;
    generator_ = at::globalContext().defaultGenerator(device);
    now_ = state_of(generator_);
    set_state(generator_, then);
  }
  ~Replay() {
    if (now_.defined()) set_state(generator_, now_);
  }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

 private:
  at::Generator generator_;
  Tensor now_;
};

// What was made without a graph; not an input of the function.
struct Made {
  Tensor y, state;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const c10::intrusive_ptr<Part>& part, const Made& made) {
    ctx->save_for_backward({x});
    ctx->saved_data["part"] = c10::IValue::make_capsule(part);
    ctx->saved_data["state"] = made.state;
    return made.y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto x = ctx->get_saved_variables()[0].detach().set_requires_grad(true);
    auto part = c10::static_intrusive_pointer_cast<Part>(ctx->saved_data["part"].toCapsule());
    Tensor y;
    {
      Replay draws(ctx->saved_data["state"].toTensor(), x.device());
      at::AutoGradMode graph(true);
      y = (*part)(x);
    }
    torch::autograd::backward({y}, {grads[0]});
    auto dx = x.grad();
    x.mutable_grad().reset();
    return {dx, Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace collimate

extern "C" {

// The state of the generator that operators on x draw from.
int collimate_generator_state(const Tensor* x, Tensor** out) {
  return collimate::guarded(
      [&] { *out = new Tensor(collimate::state_of(at::globalContext().defaultGenerator(x->device()))); });
}

// `y`, which `run` made of `x` without a graph, as a function of x. `state`: the generator's before that, null where nothing
// was drawn. `owner` belongs to this from the call on, whether it succeeds or not.
int collimate_checkpoint(const Tensor* x, const Tensor* y, const Tensor* state, void* owner, collimate::Run run,
                         collimate::Release release, Tensor** out) {
  return collimate::guarded([&] {
    auto part = c10::make_intrusive<collimate::Part>(owner, run, release);
    // A view's history is its base's.
    collimate::Made made{y->is_view() ? y->clone() : *y, state == nullptr ? Tensor() : *state};
    *out = new Tensor(collimate::Checkpoint::apply(*x, part, made));
  });
}

// Leaves a message for collimate_last_error.
void collimate_set_error(const char* text, size_t length) {
  try {
    collimate::last_error().assign(text, length);
  } catch (...) {
    // No memory for the message: the older one stands.
  }
}
}
