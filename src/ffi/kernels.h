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

// Activations that have loops of their own.
enum Activation { kGeluTanh = 0, kSilu = 1 };

// values[i] = act(x[i]), times gate[i] where there is a gate. Going back, `grads` holds the gradient of that product and
// becomes the one of x, `gate_grads` becomes the gate's.
struct Activated {
  const float *x, *gate;
  float *values, *grads, *gate_grads;
  int activation;
};

// The loops for one instruction set.
struct Kernels {
  void (*product)(const struct Product*, int64_t begin, int64_t end);
  void (*attend)(const struct Step*, float* scores, int64_t begin, int64_t end);
  void (*draw)(const struct Draw*, double* before, int64_t begin, int64_t end);
  void (*activate)(const struct Activated*, int64_t begin, int64_t end);
  void (*activate_back)(const struct Activated*, int64_t begin, int64_t end);
  int64_t panel_width;
};

// Those of this processor; null where there are none.
const struct Kernels* collimate_kernels();
}
