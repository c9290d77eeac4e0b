// What the runtime uses of Android's pthread.h; see stdlib.h. Sizes are those of 64-bit Android, where all zeros is the
// initial state.
#pragma once

#include <stdint.h>

extern "C" {
typedef long pthread_t;
typedef struct {
  int32_t words[10];
} pthread_mutex_t;
typedef struct {
  int32_t words[12];
} pthread_cond_t;
struct pthread_attr_t;

#define PTHREAD_MUTEX_INITIALIZER {{0}}
#define PTHREAD_COND_INITIALIZER {{0}}

int pthread_create(pthread_t* thread, const struct pthread_attr_t* attributes, void* (*start)(void*), void* argument);
int pthread_join(pthread_t thread, void** result);
int pthread_mutex_lock(pthread_mutex_t* mutex);
int pthread_mutex_unlock(pthread_mutex_t* mutex);
int pthread_mutex_destroy(pthread_mutex_t* mutex);
int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex);
int pthread_cond_signal(pthread_cond_t* condition);
int pthread_cond_broadcast(pthread_cond_t* condition);
int pthread_cond_destroy(pthread_cond_t* condition);
}
