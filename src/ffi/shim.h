// What the shim's files share: no exception leaves it. Every function returns 0, or 1 and leaves a message (without
// libtorch's stack trace) for collimate_last_error.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <exception>
#include <string>
#include <utility>

namespace collimate {

std::string& last_error();

template <typename F>
int guarded(F&& body) noexcept {
  try {
    std::forward<F>(body)();
    return 0;
  } catch (const c10::Error& error) {
    last_error() = error.what_without_backtrace();
  } catch (const std::exception& error) {
    last_error() = error.what();
  } catch (...) {
    last_error() = "an exception of unknown type";
  }
  return 1;
}

// Adds the gradient that `make` gives to a leaf's: without a second buffer of the leaf's size where `add` can write into
// what is there. A weight that is used twice (embedding and head) has one gradient buffer from the first use on.
template <typename Make, typename Add>
void accumulate(const at::Tensor& leaf, Make&& make, Add&& add) {
  auto& grad = leaf.mutable_grad();
  if (grad.defined()) {
    add(grad);
  } else {
    grad = make();
  }
}

}  // namespace collimate
