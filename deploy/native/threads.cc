#include "threads.h"

#include <sched.h>

namespace bssl {
namespace {

// Some 40 microseconds of looking without a pause: longer than what lies between two layers' binary parts.
constexpr int kSpins = 1000;
// Then up to a millisecond in which whoever else wants the core gets it: what lies between two images of a caller who
// has the next one ready. A thread asleep takes 50 microseconds and more to wake, a fifth of a small network's time.
constexpr int kYields = 2000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// False where it waited in vain.
template <typename Condition>
bool wait_actively(const Condition& holds) {
  for (int i = 0; i < kSpins; ++i, relax()) {
    if (holds()) return true;
  }
  for (int i = 0; i < kYields; ++i, sched_yield()) {
    if (holds()) return true;
  }
  return false;
}

}  // namespace

void ThreadPool::start(int threads) {
  if (threads > kMaxThreads) threads = kMaxThreads;
  if (threads <= 1 || helpers_ != 0 || !helper_list_.allocate(static_cast<size_t>(threads - 1)) ||
      !shares_.allocate(static_cast<size_t>(threads))) {
    return;
  }
  for (int i = 0; i < threads - 1; ++i) {
    helper_list_[i] = Helper{this, pthread_t(), i + 1};
    if (pthread_create(&helper_list_[i].thread, nullptr, &ThreadPool::entry, &helper_list_[i]) != 0) break;
    ++helpers_;
  }
}

ThreadPool::~ThreadPool() {
  __atomic_store_n(&stopping_, true, __ATOMIC_SEQ_CST);
  call_helpers();
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
  work_ = work;
  context_ = context;
  const int64_t workers = threads();
  for (int64_t i = 0; i < workers; ++i) {
    shares_[i].end = static_cast<int>(count * (i + 1) / workers);
    __atomic_store_n(&shares_[i].next, static_cast<int>(count * i / workers), __ATOMIC_RELAXED);
  }
  __atomic_store_n(&open_, true, __ATOMIC_SEQ_CST);
  call_helpers();

  work_off(0);

  // Nothing is left to take, so helpers that were not there in time are not waited for. One that joins says so before
  // it looks whether the round is open: either it finds it closed, or it is seen here.
  __atomic_store_n(&open_, false, __ATOMIC_SEQ_CST);
  const auto all_done = [&] { return __atomic_load_n(&busy_, __ATOMIC_SEQ_CST) == 0; };
  if (!wait_actively(all_done)) {
    pthread_mutex_lock(&mutex_);
    __atomic_store_n(&caller_sleeps_, true, __ATOMIC_SEQ_CST);
    while (!all_done()) pthread_cond_wait(&done_, &mutex_);
    __atomic_store_n(&caller_sleeps_, false, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&mutex_);
  }
  __atomic_store_n(&taken_, false, __ATOMIC_RELEASE);
}

void ThreadPool::call_helpers() {
  __atomic_fetch_add(&round_, 1, __ATOMIC_SEQ_CST);
  // One that goes to sleep says so before it looks at the round for the last time.
  if (__atomic_load_n(&sleepers_, __ATOMIC_SEQ_CST) == 0) return;
  pthread_mutex_lock(&mutex_);
  pthread_cond_broadcast(&wake_);
  pthread_mutex_unlock(&mutex_);
}

void ThreadPool::work_off(int thread) {
  for (int i = 0; i <= helpers_; ++i) {
    Share& share = shares_[(thread + i) % (helpers_ + 1)];
    for (;;) {
      const int task = __atomic_fetch_add(&share.next, 1, __ATOMIC_RELAXED);
      if (task >= share.end) break;
      work_(context_, task, thread);
    }
  }
}

void* ThreadPool::entry(void* helper) {
  Helper* self = static_cast<Helper*>(helper);
  self->pool->help(self->number);
  return nullptr;
}

void ThreadPool::help(int number) {
  uint32_t seen = 0;
  const auto called = [&] { return __atomic_load_n(&round_, __ATOMIC_SEQ_CST) != seen; };
  for (;;) {
    if (!wait_actively(called)) {
      pthread_mutex_lock(&mutex_);
      __atomic_fetch_add(&sleepers_, 1, __ATOMIC_SEQ_CST);
      while (!called()) pthread_cond_wait(&wake_, &mutex_);
      __atomic_fetch_sub(&sleepers_, 1, __ATOMIC_SEQ_CST);
      pthread_mutex_unlock(&mutex_);
    }
    seen = __atomic_load_n(&round_, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&stopping_, __ATOMIC_SEQ_CST)) return;
    __atomic_fetch_add(&busy_, 1, __ATOMIC_SEQ_CST);
    // Perhaps the round after the one that was seen; then that one is found empty later.
    if (__atomic_load_n(&open_, __ATOMIC_SEQ_CST)) work_off(number);
    if (__atomic_sub_fetch(&busy_, 1, __ATOMIC_SEQ_CST) == 0 && __atomic_load_n(&caller_sleeps_, __ATOMIC_SEQ_CST)) {
      pthread_mutex_lock(&mutex_);
      pthread_cond_signal(&done_);
      pthread_mutex_unlock(&mutex_);
    }
  }
}

}  // namespace bssl
