// Matrix products of the model: on the CPU in float32 by the fastest way this processor has, else libtorch's.
#pragma once

#include <ATen/ATen.h>

namespace collimate {

// a [M, K] b [K, N], plus a bias [N] where it is defined.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});
// y [M, N] += a b
void add_product(at::Tensor& y, const at::Tensor& a, const at::Tensor& b);

// x w + bias, w being the weight [in, out] where `in_out`, else the transpose of the weight [out, in]; and its gradients by x and
// by the weight.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool in_out);
at::Tensor linear_back(const at::Tensor& grad, const at::Tensor& weight, bool in_out);
at::Tensor linear_weight_back(const at::Tensor& grad, const at::Tensor& x, bool in_out);

}  // namespace collimate
