// Numbers that a head's passes go by.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace collimate {

struct HeadOptions {
  double scale;            // of logits: 1 / temperature
  int64_t budget;          // bytes of float32 logits at once
  at::ScalarType compute;  // kind of the matrix products
  bool figures;            // whether entropy and correctness are wanted
};

}  // namespace collimate
