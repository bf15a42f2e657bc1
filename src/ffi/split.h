// Products in float32 on a processor's bfloat16 matrix unit: what `split.cpp`, which knows plain memory alone, and
// `product.cpp`, which knows tensors, agree on. A panel is 32 lines, rows of the left matrix or columns of the right one.
#pragma once

#include <stdint.h>

extern "C" {

// Lines of a matrix, of which the pieces are wanted.
struct SplitLines {
  const float* from;
  int64_t stride;
  bool in_order;  // a line's terms lie beside each other, lines `stride` apart; else the other way round
  bool left;      // rows of the left matrix, else columns of the right one
  int64_t lines, terms;
  char* to;  // split_bytes(terms) for each panel, at a multiple of 64
};

// y [rows, columns] from the pieces of both sides: on top of what is there where `add`, plus a bias [columns] where there is one.
struct SplitBlock {
  const char *left, *right;
  const float* bias;
  float* y;
  int64_t stride, rows, columns, terms;
  bool add;
};

constexpr int64_t kSplitPanel = 32;
constexpr int64_t split_panels(int64_t count) { return (count + kSplitPanel - 1) / kSplitPanel; }
// Of a panel's pieces: three bfloat16 for each value.
constexpr int64_t split_bytes(int64_t terms) { return split_panels(terms) * kSplitPanel * kSplitPanel * 6; }

// Whether this processor has the unit and the system lets this process use it.
int collimate_split_works();
// Makes the pieces of panels [begin, end).
void collimate_split_pack(const SplitLines*, int64_t begin, int64_t end);
// Panels [begin, end) of y's columns.
void collimate_split_multiply(const SplitBlock*, int64_t begin, int64_t end);
}
