// When each node ran, for whoever asks where the time of a call goes.
//
// Between the end of one node of ours and the beginning of the next lies what the interpreter runs by itself; its
// caller knows when the call began and ended. So nothing of a call is left without an owner.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "include/bssl_tf_runtime.h"

namespace bssl {

using NodeTime = ::BsslNodeTime;

inline int64_t now_ns() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

// Off at first. Nodes of several interpreters may add at once; it is switched while none of them runs.
class Profile {
 public:
  bool on() const { return __atomic_load_n(&times_, __ATOMIC_RELAXED) != nullptr; }

  // From now on `times` has room for `capacity` of them; null switches off. Returns how many there were until now,
  // those for which there was no room too.
  size_t keep(NodeTime* times, size_t capacity) {
    const size_t count = __atomic_exchange_n(&count_, 0, __ATOMIC_ACQ_REL);
    capacity_ = capacity;
    __atomic_store_n(&times_, times, __ATOMIC_RELEASE);
    return count;
  }

  void add(int64_t node, int64_t begin_ns, int64_t end_ns) {
    const size_t place = __atomic_fetch_add(&count_, 1, __ATOMIC_ACQ_REL);
    if (place < capacity_) times_[place] = {node, begin_ns, end_ns};
  }

 private:
  NodeTime* times_ = nullptr;
  size_t capacity_ = 0;
  size_t count_ = 0;
};

}  // namespace bssl
