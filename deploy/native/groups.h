// Which ops become one delegate node.
//
// Every Lce op is claimed, as nothing else can run it. A binary convolution with float output also takes what follows
// it element by element, up to the next LceQuantize; so does a chain of such ops that ends in an LceQuantize. A group
// reads nothing that was made after its first op, so that it can stand in that op's place.
#pragma once

#include "array.h"
#include "tflite_abi.h"

namespace bssl {

class Groups {
 public:
  // Null, or what is wrong.
  const char* find(TfLiteContext* context);

  size_t count() const { return count_; }
  // Indices of group `i`'s nodes, in the order of execution.
  const TfLiteIntArray* nodes(size_t i) const {
    return reinterpret_cast<const TfLiteIntArray*>(memory_.data() + starts_[i]);
  }

 private:
  struct PlannedNode {
    int index;
    TfLiteNode* node;
    TfLiteRegistration* registration;
    bool claimed;
  };

  size_t grow(TfLiteContext* context, size_t seed, size_t* group, bool* quantizes);
  bool fits(TfLiteContext* context, size_t position, size_t seed, const TfLiteTensor* like, bool* quantizes);

  Array<PlannedNode> plan_;
  Array<size_t> made_at_;    // by tensor: position in the plan of the op that makes it, plus 1; or 0
  Array<size_t> inside_of_;  // by tensor: the seed of the group that makes it, plus 1; or 0
  Array<int> memory_;        // groups one after the other, each its size and its nodes
  Array<size_t> starts_;
  size_t count_ = 0;
};

}  // namespace bssl
