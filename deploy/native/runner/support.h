// What every file of the runner needs: an end with a message, numbers from text, files, JSON text, the clock.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace bssl {

// Exit statuses. The host gives each a meaning: bssl_tf/devices/android_runner.py.
enum Status : int {
  kUsage = 2,
  kFile = 3,     // cannot be read or written, or has another size than it must have
  kLibrary = 4,  // TensorFlow Lite's or ours cannot be loaded, or lacks a function
  kModel = 5,    // refused by the interpreter, or of another form than it must have
  kInvoke = 6,   // an inference failed
  kMemory = 7,
};

// Writes `bssl_tf_runner: ...` as one line to stderr and ends the program. `error: ...` is how adb's own lines begin.
[[noreturn]] void fail(Status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

// A whole number from `low` to `high`, or the program ends; `what` names it in the message.
int64_t number(const char* text, int64_t low, int64_t high, const char* what);

// Memory for `count` things of `size` bytes each, never null.
void* allocate(size_t count, size_t size);

// All of a file, which must have exactly `bytes`. The caller frees it.
uint8_t* read_exactly(const char* path, size_t bytes);

// The beginning of a small text file up to its first line end, "" where it cannot be read.
void first_line(const char* path, char* line, size_t size);

// `text` between quotes on stdout; what JSON does not take as it stands becomes a question mark.
void print_text(const char* text);

// Nanoseconds of a clock that nobody sets.
int64_t now();

}  // namespace bssl
