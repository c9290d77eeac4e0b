#include "threads.h"

namespace bssl {
namespace {

// About 20 microseconds: longer than the pause between two layers' binary parts, shorter than a scheduler's slice.
constexpr int kSpins = 4000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

void ThreadPool::start(int threads) {
  if (threads > kMaxThreads) threads = kMaxThreads;
  if (threads <= 1 || helpers_ != 0 || !helper_list_.allocate(static_cast<size_t>(threads - 1))) return;
  for (int i = 0; i < threads - 1; ++i) {
    helper_list_[i] = Helper{this, pthread_t(), i + 1};
    if (pthread_create(&helper_list_[i].thread, nullptr, &ThreadPool::entry, &helper_list_[i]) != 0) break;
    ++helpers_;
  }
}

ThreadPool::~ThreadPool() {
  pthread_mutex_lock(&mutex_);
  stopping_ = true;
  __atomic_fetch_add(&round_, 1, __ATOMIC_RELEASE);
  pthread_cond_broadcast(&wake_);
  pthread_mutex_unlock(&mutex_);
  for (int i = 0; i < helpers_; ++i) pthread_join(helper_list_[i].thread, nullptr);
  pthread_cond_destroy(&wake_);
  pthread_cond_destroy(&done_);
  pthread_mutex_destroy(&mutex_);
}

void ThreadPool::run(int count, Work work, void* context) {
  // A caller who finds the pool at work, another interpreter with the same delegate, does it all alone.
  if (helpers_ == 0 || count <= 1 || __atomic_exchange_n(&taken_, true, __ATOMIC_ACQUIRE)) {
    for (int task = 0; task < count; ++task) work(context, task, 0);
    return;
  }
  pthread_mutex_lock(&mutex_);
  work_ = work;
  context_ = context;
  count_ = count;
  open_ = true;
  __atomic_store_n(&next_, 0, __ATOMIC_RELAXED);
  __atomic_fetch_add(&round_, 1, __ATOMIC_RELEASE);
  pthread_cond_broadcast(&wake_);
  pthread_mutex_unlock(&mutex_);

  work_off(0);

  // Nothing is left to take, so helpers that were not there in time are not waited for.
  pthread_mutex_lock(&mutex_);
  open_ = false;
  pthread_mutex_unlock(&mutex_);
  for (int spin = 0; spin < kSpins && __atomic_load_n(&busy_, __ATOMIC_ACQUIRE) != 0; ++spin) relax();
  if (__atomic_load_n(&busy_, __ATOMIC_ACQUIRE) != 0) {
    pthread_mutex_lock(&mutex_);
    while (__atomic_load_n(&busy_, __ATOMIC_ACQUIRE) != 0) pthread_cond_wait(&done_, &mutex_);
    pthread_mutex_unlock(&mutex_);
  }
  __atomic_store_n(&taken_, false, __ATOMIC_RELEASE);
}

void ThreadPool::work_off(int thread) {
  for (;;) {
    const int task = __atomic_fetch_add(&next_, 1, __ATOMIC_RELAXED);
    if (task >= count_) return;
    work_(context_, task, thread);
  }
}

void* ThreadPool::entry(void* helper) {
  Helper* self = static_cast<Helper*>(helper);
  self->pool->help(self->number);
  return nullptr;
}

void ThreadPool::help(int number) {
  uint32_t seen = 0;
  for (;;) {
    for (int spin = 0; spin < kSpins && __atomic_load_n(&round_, __ATOMIC_ACQUIRE) == seen; ++spin) relax();
    pthread_mutex_lock(&mutex_);
    while (__atomic_load_n(&round_, __ATOMIC_RELAXED) == seen) pthread_cond_wait(&wake_, &mutex_);
    seen = __atomic_load_n(&round_, __ATOMIC_RELAXED);
    const bool stop = stopping_, join = open_;
    if (join) __atomic_fetch_add(&busy_, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&mutex_);
    if (stop) return;
    if (!join) continue;
    work_off(number);
    // The mutex around the last one's signal, so that a caller between its test and its wait cannot miss it.
    if (__atomic_sub_fetch(&busy_, 1, __ATOMIC_ACQ_REL) == 0) {
      pthread_mutex_lock(&mutex_);
      pthread_cond_signal(&done_);
      pthread_mutex_unlock(&mutex_);
    }
  }
}

}  // namespace bssl
