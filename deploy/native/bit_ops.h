// The ops that only move bits: LceQuantize of integers, LceDequantize, LceBMaxPool2d.
#pragma once

#include "array.h"
#include "ops.h"
#include "tflite_abi.h"
#include "threads.h"

namespace bssl {

class BitOp {
 public:
  // `outputs` are the tensors that others read.
  const char* init(TfLiteContext* context, const TfLiteNode* node, LceOp op, const TfLiteIntArray* outputs);
  const char* prepare(TfLiteContext* context);
  void run(TfLiteContext* context, ThreadPool* pool);

 private:
  const char* prepare_pool(TfLiteContext* context, const TfLiteTensor* input, TfLiteTensor* output);

  LceOp op_ = LceOp::kNone;
  int input_ = -1, output_ = -1;
  // LceBMaxPool2d's.
  size_t filter_height_ = 0, filter_width_ = 0, stride_height_ = 0, stride_width_ = 0;
  bool same_padding_ = false;
  size_t pad_top_ = 0, pad_left_ = 0;
  // A constant LceDequantize is done when the model is loaded, and its output is a constant then.
  const char* unpack_constant(TfLiteContext* context);
  bool is_done_ = false;
  bool is_unread_ = true;  // nobody reads the output, which has no memory then
  Array<uint8_t> constant_;
};

}  // namespace bssl
