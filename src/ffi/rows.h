// One pass over a row of logits on the CPU: what softmax, log-prob, entropy and gradient need, without temporaries.
#pragma once

#include <cstdint>

namespace collimate {

struct RowStats {
  float logprob;  // of the target, nats
  float lse;      // log of the sum of exponentials
  float entropy;  // of the softmax, nats
  float correct;  // 1 where the target is the first of the largest
  float size;     // the largest magnitude
};

// Of `x [vocab]`, scaled by `scale` first.
RowStats row_stats(const float* x, int64_t vocab, int64_t target, float scale, bool figures);

// Overwrites logits `x [vocab]` by the gradient of `upstream * log softmax(scale x)[target]` with respect to x.
void row_gradient(float* x, int64_t vocab, int64_t target, float scale, float lse, float upstream);

}  // namespace collimate
