#include "threads.h"

#include <sched.h>
#if defined(__ANDROID__)
#include <unistd.h>
#endif

namespace bssl {
namespace {

// Tells a process from its parent.
#if defined(__ANDROID__)
// The C library keeps the number at hand. pthread_atfork would need start files that nothing else here needs.
uint32_t this_process() { return static_cast<uint32_t>(getpid()); }
bool can_tell_processes() { return true; }
#else
// Counted, as asking the system costs a tenth of what handing work over does.
uint32_t forks = 0;
const bool kCounted = pthread_atfork(nullptr, nullptr, [] { ++forks; }) == 0;
uint32_t this_process() { return forks; }
bool can_tell_processes() { return kCounted; }
#endif

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
  // Otherwise a child would wait for helpers that it does not have.
  if (threads < 1 || !can_tell_processes()) threads = 1;
  size_t undecided = 0;
  __atomic_compare_exchange_n(&threads_, &undecided, static_cast<size_t>(threads), false, __ATOMIC_SEQ_CST,
                              __ATOMIC_SEQ_CST);
  if (this->threads() > 1) has_helpers();
}

bool ThreadPool::has_helpers() {
  const uint32_t here = this_process();
  if (__atomic_load_n(&process_, __ATOMIC_ACQUIRE) == here) return helpers_ > 0;
  uint32_t last = __atomic_load_n(&starting_, __ATOMIC_SEQ_CST);
  if (last == here ||
      !__atomic_compare_exchange_n(&starting_, &last, here, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    return false;
  }
  start_helpers();
  __atomic_store_n(&process_, here, __ATOMIC_RELEASE);
  return helpers_ > 0;
}

// Whatever is found here may be as other threads of the parent left it: a lock held, a count of sleepers.
void ThreadPool::start_helpers() {
  helpers_ = 0;
  mutex_ = PTHREAD_MUTEX_INITIALIZER;
  wake_ = done_ = PTHREAD_COND_INITIALIZER;
  round_ = 0;
  sleepers_ = busy_ = 0;
  caller_sleeps_ = open_ = taken_ = false;
  const size_t count = threads();
  if ((helper_list_.size() < count && !helper_list_.allocate(count)) ||
      (shares_.size() < count && !shares_.allocate(count))) {
    return;
  }
  for (size_t i = 1; i < count; ++i) {
    helper_list_[i] = Helper{this, pthread_t(), i};
    if (pthread_create(&helper_list_[i].thread, nullptr, &ThreadPool::entry, &helper_list_[i]) != 0) break;
    ++helpers_;
  }
}

ThreadPool::~ThreadPool() {
  // A child that never used the pool has nobody to wait for, and leaves the locks as they are.
  if (process_ != this_process()) return;
  __atomic_store_n(&stopping_, true, __ATOMIC_SEQ_CST);
  call_helpers();
  for (size_t i = 1; i <= helpers_; ++i) pthread_join(helper_list_[i].thread, nullptr);
  pthread_cond_destroy(&wake_);
  pthread_cond_destroy(&done_);
  pthread_mutex_destroy(&mutex_);
}

void ThreadPool::run(size_t count, Work work, void* context) {
  // A caller who finds the pool at work, another interpreter with the same delegate, does it all alone.
  if (threads() == 1 || count <= 1 || !has_helpers() || __atomic_exchange_n(&taken_, true, __ATOMIC_ACQUIRE)) {
    for (size_t task = 0; task < count; ++task) work(context, task, 0);
    return;
  }
  work_ = work;
  context_ = context;
  const size_t workers = helpers_ + 1;
  for (size_t i = 0; i < workers; ++i) {
    shares_[i].end = count * (i + 1) / workers;
    __atomic_store_n(&shares_[i].next, count * i / workers, __ATOMIC_RELAXED);
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

void ThreadPool::work_off(size_t thread) {
  for (size_t i = 0; i <= helpers_; ++i) {
    Share& share = shares_[(thread + i) % (helpers_ + 1)];
    for (;;) {
      const size_t task = __atomic_fetch_add(&share.next, 1, __ATOMIC_RELAXED);
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

void ThreadPool::help(size_t number) {
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
