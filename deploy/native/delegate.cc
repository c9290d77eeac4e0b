// The door: what an interpreter looks up in the library, and the ops it gets in place of a model's.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bit_ops.h"
#include "cpu.h"
#include "groups.h"
#include "include/bssl_tf_runtime.h"
#include "ops.h"
#include "profile.h"
#include "program.h"
#include "tensors.h"
#include "tflite_abi.h"
#include "threads.h"

#ifndef BSSL_RUNTIME_VERSION
#error "the build sets the version: build.py takes it from the package"
#endif

namespace bssl {
struct InPlace {};
}  // namespace bssl

inline void* operator new(size_t, void* memory, bssl::InPlace) noexcept { return memory; }

namespace bssl {
namespace {

struct Delegate {
  TfLiteDelegate base = {};
  KernelChoice choice;
  int threads = 0;  // 0: what the interpreter recommends
  bool can_profile = false;
  ThreadPool pool;
  Profile profile;
};

// One delegate node.
struct Op {
  Delegate* delegate = nullptr;
  const char* wrong = nullptr;
  int first_node = -1;
  // Null for most delegates. Here, as looking into the delegate would fetch a line of memory for each node.
  Profile* profile = nullptr;
  bool is_program = false;
  Program program;
  BitOp bit_op;
};

// The library is linked without libstdc++, so memory and construction are asked for one by one.
template <typename T>
T* create() {
  void* memory = nullptr;
  if (posix_memalign(&memory, kAlignment, (sizeof(T) + kAlignment - 1) / kAlignment * kAlignment) != 0) return nullptr;
  return new (memory, InPlace()) T();
}

template <typename T>
void destroy(T* object) {
  if (object == nullptr) return;
  object->~T();
  free(object);
}

void report(TfLiteContext* context, const char* wrong) { context->ReportError(context, "bssl-tf runtime: %s.", wrong); }

void* op_init(TfLiteContext* context, const char* buffer, size_t) {
  const TfLiteDelegateParams* params = reinterpret_cast<const TfLiteDelegateParams*>(buffer);
  if (params == nullptr) return nullptr;
  Op* op = create<Op>();
  if (op == nullptr) return nullptr;
  op->delegate = static_cast<Delegate*>(params->delegate->data);
  TfLiteNode* node = nullptr;
  TfLiteRegistration* registration = nullptr;
  if (count_of(params->nodes_to_replace) == 0 ||
      context->GetNodeAndRegistration(context, params->nodes_to_replace->data[0], &node, &registration) != kTfLiteOk) {
    op->wrong = "the interpreter passed an empty node";
    return op;
  }
  op->first_node = params->nodes_to_replace->data[0];
  if (op->delegate->can_profile) op->profile = &op->delegate->profile;
  const LceOp kind = lce_op(registration);
  const TfLiteTensor* input = count_of(node->inputs) > 0 ? tensor_at(context, node->inputs->data[0]) : nullptr;
  const bool float_quantize = kind == LceOp::kQuantize && input != nullptr && input->type == kTfLiteFloat32;
  op->is_program = kind == LceOp::kBconv2d || kind == LceOp::kNone || float_quantize;
  op->wrong = op->is_program
                  ? op->program.init(context, params->nodes_to_replace, params->output_tensors, op->delegate->choice)
                  : op->bit_op.init(context, node, kind, params->output_tensors);
  return op;
}

void op_free(TfLiteContext*, void* buffer) { destroy(static_cast<Op*>(buffer)); }

TfLiteStatus op_prepare(TfLiteContext* context, TfLiteNode* node) {
  Op* op = static_cast<Op*>(node->user_data);
  const char* wrong = "out of memory";
  if (op != nullptr) {
    wrong = op->wrong;
    if (wrong == nullptr) {
      wrong = op->is_program ? op->program.prepare(context, op->delegate->pool.threads()) : op->bit_op.prepare(context);
    }
  }
  if (wrong == nullptr) return kTfLiteOk;
  report(context, wrong);
  return kTfLiteError;
}

void run_program_task(void* program, size_t task, size_t thread) {
  static_cast<Program*>(program)->run_task(task, thread);
}

void run(TfLiteContext* context, Op* op) {
  if (!op->is_program) {
    op->bit_op.run(context, &op->delegate->pool);
    return;
  }
  op->program.start(context);
  Program& program = op->program;
  if (program.worth_threads()) {
    op->delegate->pool.run(program.tasks(), &run_program_task, &program);
  } else {
    for (size_t task = 0; task < program.tasks(); ++task) program.run_task(task, 0);
  }
}

// Apart, so that a call that nobody watches stays as short as it can be.
__attribute__((noinline, cold)) void run_watched(TfLiteContext* context, Op* op) {
  if (!op->profile->on()) {
    run(context, op);
    return;
  }
  const int64_t begin = now_ns();
  run(context, op);
  op->profile->add(op->first_node, begin, now_ns());
}

TfLiteStatus op_invoke(TfLiteContext* context, TfLiteNode* node) {
  Op* op = static_cast<Op*>(node->user_data);
  if (op == nullptr || op->wrong != nullptr) return kTfLiteError;
  if (__builtin_expect(op->profile != nullptr, false)) {
    run_watched(context, op);
  } else {
    run(context, op);
  }
  return kTfLiteOk;
}

TfLiteStatus delegate_prepare(TfLiteContext* context, TfLiteDelegate* base) {
  Delegate* delegate = static_cast<Delegate*>(base->data);
  delegate->pool.start(delegate->threads > 0 ? delegate->threads : context->recommended_num_threads);
  Groups groups;
  if (const char* wrong = groups.find(context)) {
    report(context, wrong);
    return kTfLiteError;
  }
  TfLiteRegistration registration = {};
  registration.init = op_init;
  registration.free = op_free;
  registration.prepare = op_prepare;
  registration.invoke = op_invoke;
  registration.custom_name = "BsslBinary";
  registration.version = 1;
  for (size_t i = 0; i < groups.count(); ++i) {
    const TfLiteStatus status =
        context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, groups.nodes(i), base);
    if (status != kTfLiteOk) return status;
  }
  return kTfLiteOk;
}

KernelChoice best_choice() {
  KernelChoice choice;
  choice.isa = cpu().avx512 ? Isa::kAvx512 : cpu().avx2 ? Isa::kAvx2 : cpu().neon ? Isa::kNeon : Isa::kPortable;
  return choice;
}

const char* set_option(Delegate* delegate, const char* key, const char* value) {
  if (strcmp(key, "num_threads") == 0) {
    char* end = nullptr;
    const long threads = strtol(value, &end, 10);
    if (end == value || *end != 0 || threads < 1 || threads > kMaxThreads) {
      return "num_threads must be a number from 1 to 64";
    }
    delegate->threads = static_cast<int>(threads);
    return nullptr;
  }
  if (strcmp(key, "isa") == 0) {
    if (strcmp(value, "auto") == 0) return nullptr;
    static const struct {
      const char* name;
      Isa isa;
    } kNames[] = {{"portable", Isa::kPortable}, {"avx2", Isa::kAvx2}, {"avx512", Isa::kAvx512}, {"neon", Isa::kNeon}};
    for (const auto& entry : kNames) {
      if (strcmp(value, entry.name) != 0) continue;
      if (!cpu().has(entry.isa)) return "this processor does not have the instructions that isa names";
      delegate->choice.isa = entry.isa;
      return nullptr;
    }
    return "isa must be auto, portable, avx2, avx512 or neon";
  }
  if (strcmp(key, "profile") == 0) {
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0) return "profile wants 0 or 1";
    delegate->can_profile = value[0] == '1';
    return nullptr;
  }
  return "the options are num_threads, isa and profile";
}

char kernel_names[512];
pthread_mutex_t kernel_names_mutex = PTHREAD_MUTEX_INITIALIZER;

void name_kernels() {
  if (kernel_names[0] != 0) return;
  const KernelChoice best = best_choice();
  size_t used = 0;
  for (int others = 0; others < 2; ++others) {
    for (size_t i = 0; i < kMicroKernelCount; ++i) {
      const MicroKernel& kernel = *kMicroKernels[i];
      const bool chosen = kernel.isa == best.isa;
      if (!cpu().has(kernel.isa) || chosen == (others != 0)) continue;
      const size_t length = strlen(kernel.name);
      if (used + length + 2 > sizeof(kernel_names)) break;
      if (used > 0) kernel_names[used++] = ',';
      memcpy(kernel_names + used, kernel.name, length);
      used += length;
    }
  }
}

}  // namespace
}  // namespace bssl

// What the header documents.
extern "C" {

TfLiteDelegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                              void (*report_error)(const char*)) {
  using namespace bssl;
  Delegate* delegate = create<Delegate>();
  const char* wrong = delegate == nullptr ? "out of memory" : nullptr;
  if (wrong == nullptr) delegate->choice = best_choice();
  for (size_t i = 0; i < count && wrong == nullptr; ++i) {
    wrong = keys[i] == nullptr || values[i] == nullptr ? "an option has no name or no value"
                                                       : set_option(delegate, keys[i], values[i]);
  }
  if (wrong != nullptr) {
    destroy(delegate);
    char line[160];
    snprintf(line, sizeof(line), "bssl-tf runtime: %s.", wrong);
    if (report_error != nullptr) report_error(line);
    return nullptr;
  }
  delegate->base.data = delegate;
  delegate->base.Prepare = delegate_prepare;
  delegate->base.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  return &delegate->base;
}

void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  if (delegate != nullptr) bssl::destroy(static_cast<bssl::Delegate*>(delegate->data));
}

int64_t bssl_runtime_profile(TfLiteDelegate* delegate, BsslNodeTime* times, size_t capacity) {
  bssl::Delegate* self = delegate == nullptr ? nullptr : static_cast<bssl::Delegate*>(delegate->data);
  if (self == nullptr || !self->can_profile) return -1;
  return static_cast<int64_t>(self->profile.keep(capacity > 0 ? times : nullptr, capacity));
}

const char* bssl_runtime_version(void) { return BSSL_RUNTIME_VERSION; }

const char* bssl_runtime_kernels(void) {
  pthread_mutex_lock(&bssl::kernel_names_mutex);
  bssl::name_kernels();
  pthread_mutex_unlock(&bssl::kernel_names_mutex);
  return bssl::kernel_names;
}

}  // extern "C"
