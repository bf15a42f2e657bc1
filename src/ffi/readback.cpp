// Numbers on their way from a device to the host: the copy is queued behind what computes them, and nobody waits for it until
// it is asked for.
#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "shim.h"

using at::Tensor;

namespace collimate {
namespace {

struct Readback {
  Tensor host;
  // None: the numbers are there.
  std::optional<c10::Event> copied;
};

Readback* begin(const Tensor& numbers) {
  auto values = numbers.detach().to(at::kDouble).contiguous();
  if (values.is_cpu()) return new Readback{values, std::nullopt};
  auto host = at::empty(values.sizes(), values.options().device(at::kCPU).pinned_memory(true));
  host.copy_(values, /*non_blocking=*/true);
  auto type = values.device().type();
  c10::Event copied(type);
  copied.record(c10::impl::VirtualGuardImpl(type).getStream(values.device()));
  return new Readback{host, std::move(copied)};
}

}  // namespace
}  // namespace collimate

extern "C" {

int collimate_readback_begin(const Tensor* numbers, void** out) {
  return collimate::guarded([&] { *out = collimate::begin(*numbers); });
}

int collimate_readback_ready(void* readback, int* out) {
  return collimate::guarded([&] {
    auto& copied = static_cast<collimate::Readback*>(readback)->copied;
    *out = !copied || copied->query();
  });
}

// Waits for the copy; `count` numbers.
int collimate_readback_values(void* readback, double* out, size_t count) {
  return collimate::guarded([&] {
    auto& [host, copied] = *static_cast<collimate::Readback*>(readback);
    if (copied) copied->synchronize();
    if (static_cast<size_t>(host.numel()) != count) throw std::runtime_error("readback: another number of values");
    std::copy_n(host.data_ptr<double>(), count, out);
  });
}

void collimate_readback_release(void* readback) { delete static_cast<collimate::Readback*>(readback); }

}  // extern "C"
