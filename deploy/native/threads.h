// A pool of threads for one interpreter.
//
// Work is cut into numbered tasks. Each thread begins with a share of its own, the same numbers each time, as what it
// read and wrote for neighbouring layers lies in its core's cache; then it takes from the others' shares. The caller's
// thread works too. Idle helpers wait a while actively, as layers and images follow each other closely, soon giving way
// to whoever else wants the core, such as the threads of the interpreter's other kernels; then they sleep.
//
// Helpers are started without a lock, by whoever comes first. A child of fork() has none of its parent's; it finds that
// out before its first round and starts its own, whatever the parent's were doing at that moment.
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "array.h"

namespace bssl {

constexpr int kMaxThreads = 64;

class ThreadPool {
 public:
  // `task` numbers the piece of work, `thread` the worker: 0 .. threads - 1.
  using Work = void (*)(void* context, size_t task, size_t thread);

  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  // Starts helpers so that `threads` work, the caller's included; what was asked for first holds. If the system gives
  // fewer, the pool has fewer. From any thread, several at once.
  void start(int threads);
  // At most that many work: the numbers that workers have are below.
  size_t threads() const {
    const size_t decided = __atomic_load_n(&threads_, __ATOMIC_RELAXED);
    return decided == 0 ? 1 : decided;
  }

  // Runs tasks 0 .. count - 1 and returns when all are done. From several threads at once, all but one
  // of them work alone, each as thread 0.
  void run(size_t count, Work work, void* context);

 private:
  static constexpr uint32_t kNoProcess = ~uint32_t{0};

  struct Helper {
    ThreadPool* pool;
    pthread_t thread;
    size_t number;
  };

  // The tasks next .. end - 1 of one thread, in a line of the cache of its own.
  struct alignas(64) Share {
    size_t next;
    size_t end;
  };

  // Whether helpers of this process are there; starts them where they are not. False while another thread does so.
  bool has_helpers();
  void start_helpers();
  static void* entry(void* helper);
  void help(size_t number);
  void call_helpers();
  void work_off(size_t thread);

  size_t threads_ = 0;  // once it is decided it stays, as users have memory for so many
  // The process (see threads.cc) whose helpers these are, and the one in which somebody has begun to start them.
  uint32_t process_ = kNoProcess, starting_ = kNoProcess;
  size_t helpers_ = 0;
  Array<Helper> helper_list_;
  Array<Share> shares_;
  // For sleeping and waking alone: a helper that waits actively takes no lock, as it would meet the caller's.
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
  pthread_cond_t done_ = PTHREAD_COND_INITIALIZER;
  uint32_t round_ = 0;
  int sleepers_ = 0;  // helpers
  bool caller_sleeps_ = false;
  bool stopping_ = false;
  bool open_ = false;  // helpers may still join the round
  bool taken_ = false;
  int busy_ = 0;  // helpers that may be at work
  Work work_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace bssl
