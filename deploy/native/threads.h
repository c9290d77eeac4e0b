// A pool of threads for one interpreter.
//
// Work is cut into numbered tasks that threads take one by one. The caller's thread works too. Idle helpers wait a few
// microseconds actively, as layers follow each other closely, and then sleep, as the interpreter's other kernels have
// threads of their own that want the cores.
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
  using Work = void (*)(void* context, int task, int thread);

  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  // Starts helpers so that `threads` work, the caller's included. If the system gives fewer, the pool has fewer.
  void start(int threads);
  int threads() const { return helpers_ + 1; }

  // Runs tasks 0 .. count - 1 and returns when all are done. From several threads at once, all but one
  // of them work alone, each as thread 0.
  void run(int count, Work work, void* context);

 private:
  struct Helper {
    ThreadPool* pool;
    pthread_t thread;
    int number;
  };

  static void* entry(void* helper);
  void help(int number);
  void work_off(int thread);

  int helpers_ = 0;
  Array<Helper> helper_list_;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
  pthread_cond_t done_ = PTHREAD_COND_INITIALIZER;
  // Written under the mutex, read without it while waiting actively: hence the atomic access.
  uint32_t round_ = 0;
  bool stopping_ = false;
  bool open_ = false;   // helpers may still join the round
  bool taken_ = false;
  int next_ = 0;
  int busy_ = 0;  // helpers that joined and have not finished
  int count_ = 0;
  Work work_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace bssl
