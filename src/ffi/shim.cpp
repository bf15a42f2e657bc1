// What tch leaves out of libtorch and is a call away: the optimizer, norms, views, versions, memory figures.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/GradMode.h>
#include <torch/version.h>

#include <vector>

#include "shim.h"

namespace collimate {

std::string& last_error() {
  thread_local std::string message;
  return message;
}

}  // namespace collimate

using collimate::guarded;

namespace {

std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(*tensors[i]);
  return out;
}

c10::CachingDeviceAllocator::DeviceStats cuda_stats(int device, bool reset) {
  auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
  if (!allocator->initialized()) return {};
  auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device));
  if (reset) allocator->resetPeakStats(static_cast<c10::DeviceIndex>(device));
  return stats;
}

}  // namespace

extern "C" {

const char* collimate_last_error() { return collimate::last_error().c_str(); }

int collimate_fused_adamw(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* exp_avgs,
                          at::Tensor* const* exp_avg_sqs, at::Tensor* const* steps, size_t count,
                          const at::Tensor* divisor, double lr, double beta1, double beta2, double weight_decay,
                          double eps) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto p = list(params, count), g = list(grads, count), m = list(exp_avgs, count), v = list(exp_avg_sqs, count),
         s = list(steps, count);
    for (size_t i = 0; i < count; ++i) {
      TORCH_CHECK(g[i].defined(), "fused_adamw: parameter ", i, " has no gradient");
      TORCH_CHECK(p[i].sizes() == g[i].sizes() && p[i].sizes() == m[i].sizes() && p[i].sizes() == v[i].sizes(),
                  "fused_adamw: parameter ", i, " and its gradient or moments differ in shape");
      TORCH_CHECK(p[i].scalar_type() == g[i].scalar_type() && p[i].scalar_type() == m[i].scalar_type() &&
                      p[i].scalar_type() == v[i].scalar_type(),
                  "fused_adamw: parameter ", i, " and its gradient or moments differ in dtype");
      TORCH_CHECK(s[i].numel() == 1 && s[i].scalar_type() == at::kFloat, "fused_adamw: step ", i,
                  " must be one float32 number");
    }
    // The kernel reads the step as already counted: step 0 would divide by 1 - beta^0 = 0.
    at::_foreach_add_(s, 1);
    auto grad_scale = divisor == nullptr ? std::nullopt : std::optional<at::Tensor>(*divisor);
    at::_fused_adamw_(p, g, m, v, {}, s, lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false,
                      grad_scale);
  });
}

int collimate_global_norm(at::Tensor* const* tensors, size_t count, at::Tensor** out) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    TORCH_CHECK(count > 0, "global_norm: no tensors");
    *out = new at::Tensor(at::stack(at::_foreach_norm(list(tensors, count), 2)).norm());
  });
}

int collimate_drop_grads(at::Tensor* const* tensors, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) tensors[i]->mutable_grad().reset();
  });
}

int collimate_view(const void* data, const int64_t* sizes, size_t dims, int kind, void* owner, void (*release)(void*),
                   at::Tensor** out) {
  return guarded([&] {
    auto options = at::TensorOptions().dtype(static_cast<at::ScalarType>(kind));
    at::IntArrayRef shape(sizes, dims);
    *out = new at::Tensor(
        at::from_blob(const_cast<void*>(data), shape, [owner, release](void*) { release(owner); }, options));
  });
}

const char* collimate_torch_version() { return TORCH_VERSION; }

int collimate_full_float32() {
  return guarded([] { at::globalContext().setFloat32MatmulPrecision("highest"); });
}

int collimate_cuda_free_bytes(int device, int64_t* out) {
  return guarded([&] {
    auto index = static_cast<c10::DeviceIndex>(device);
    auto stats = cuda_stats(device, false);
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    auto free = static_cast<int64_t>(c10::getDeviceAllocator(c10::DeviceType::CUDA)->getMemoryInfo(index).first);
    // What the allocator keeps to give out again is free too.
    *out = free + stats.reserved_bytes[all].current - stats.allocated_bytes[all].current;
  });
}

int collimate_cuda_peak_bytes(int device, int reset, int64_t* out) {
  return guarded([&] {
    auto stats = cuda_stats(device, reset != 0);
    *out = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
  });
}
}
