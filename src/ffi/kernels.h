// What the loops of `kernels.cpp` work on: plain memory, float32, rows one after the other unless a stride is given.
#pragma once

#include <stdint.h>

extern "C" {

// y [rows, out] = x [rows, in] times a weight, [in, out] where `in_out` says so and else [out, in], plus a bias [out] or none.
struct Product {
  const float *x, *weight, *bias;
  float* y;
  int64_t rows, in, out;
  bool in_out;
};

// One query a row against the keys and values of that row's earlier tokens. Row r's token is stored at `at[r]` of place
// `slot[r]` of the cache [slots, capacity, kv_heads, head_dim] and seen too.
struct Step {
  const float *q, *k, *v;
  int64_t q_stride, kv_stride;  // between rows
  float *keys, *values;
  const int64_t *slot, *at;
  float* out;  // [rows, heads, head_dim]
  int64_t capacity, heads, kv_heads, head_dim;
  int64_t window;  // tokens that a query sees, itself the last; 0: all
  float scale;
};

// A token a row from softmax(logits * inverse_temperature) by inverse transform, and its log-probability. The token is -1
// where the logits are no numbers.
struct Draw {
  const float* logits;      // [rows, vocab]
  const double* uniforms;   // [rows], in [0, 1)
  int64_t* tokens;          // [rows]
  float* logprobs;          // [rows]
  int64_t vocab;
  float inverse_temperature;
};
}
