// Runs and times networks through TensorFlow Lite's C library, where there is no Python: on a phone. It says what was
// measured, raw; what that means is the host's to say (bssl_tf/devices/android_runner.py). One line of JSON on stdout,
// or one line `bssl_tf_runner: ...` on stderr and an exit status of `Status`.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "network.h"
#include "support.h"

namespace bssl {
namespace {

constexpr char kHelp[] =
    "usage: %s run TFLITE THREADS NETWORK OUTPUT\n"
    "       %s start TFLITE THREADS NETWORK\n"
    "       %s time TFLITE THREADS BURN_IN_MS BUDGET_MS ROUNDS NETWORK...\n"
    "\n"
    "NETWORK is MODEL RUNTIME INPUT IMAGES: a .tflite file with one input and one output, our library or - for none,\n"
    "a file with the images one after another as the input has them, and how many they are.\n"
    "TFLITE is libtensorflowlite_c.so or the libtensorflowlite_jni.so of TensorFlow Lite's package for Android.\n"
    "\n"
    "run    writes the outputs of all images to OUTPUT, one after another, and prints what computed them\n"
    "start  prints how long loading and the first inference took and how much memory was needed, once in a process\n"
    "time   calls the networks in turns with their first image: untimed until BURN_IN_MS are over, then timed until\n"
    "       BUDGET_MS are over, at least 20 and at most ROUNDS times; prints all durations\n";

constexpr int kNetworkWords = 4;
constexpr int kMaxNetworks = 16;
constexpr int64_t kMaxMs = 86400000;
constexpr int64_t kMaxRounds = 1000000;
constexpr int64_t kMinRounds = 20;
// As bssl_tf_deploy.start has it, so that the memory of all that an inference needs is seen.
constexpr int kCallsAfterFirst = 5;

long long whole(int64_t value) { return static_cast<long long>(value); }

NetworkFiles network_files(char** words) {
  const char* runtime = strcmp(words[1], "-") == 0 ? nullptr : words[1];
  return {words[0], runtime, words[2], number(words[3], 1, 1000000, "IMAGES")};
}

void begin_record(const TfLite& tflite) {
  printf("{\"bssl_tf_runner\":1,\"tflite\":");
  print_text(tflite.TfLiteVersion());
}

void run(const TfLite& tflite, const char* threads, char** words) {
  const NetworkFiles files = network_files(words);
  const char* path = words[kNetworkWords];
  Network network;
  network.open(tflite, files, threads);
  network.read_images();
  FILE* out = fopen(path, "wb");
  if (out == nullptr) fail(kFile, "%s cannot be written (%s)", path, strerror(errno));
  for (int64_t image = 0; image < files.images; ++image) {
    network.predict(image);
    const size_t bytes = network.output_bytes();
    if (fwrite(network.output(), 1, bytes, out) != bytes) {
      fail(kFile, "%s cannot be written (%s)", path, strerror(errno));
    }
  }
  if (fclose(out) != 0) fail(kFile, "%s cannot be written (%s)", path, strerror(errno));
  begin_record(tflite);
  printf(",\"input\":");
  network.print_input();
  printf(",\"output\":");
  network.print_output();
  if (files.runtime != nullptr) {
    printf(",\"runtime\":");
    print_text(network.runtime().version());
    printf(",\"kernels\":");
    print_text(network.runtime().kernels());
  }
  printf("}\n");
}

void start(const TfLite& tflite, const char* threads, char** words) {
  const NetworkFiles files = network_files(words);
  const int64_t before = peak_memory_kib();
  Network network;
  const int64_t began = now();
  network.open(tflite, files, threads);
  const int64_t loaded = now();
  network.read_images();
  const int64_t ready = now();
  network.predict(0);
  const int64_t first = now();
  for (int call = 0; call < kCallsAfterFirst; ++call) network.predict(0);
  begin_record(tflite);
  printf(",\"load_ns\":%lld,\"first_ns\":%lld", whole(loaded - began), whole(first - ready));
  printf(",\"memory_before_kib\":%lld,\"peak_memory_kib\":%lld}\n", whole(before), whole(peak_memory_kib()));
}

void time(const TfLite& tflite, const char* threads, char** words, int count) {
  const int64_t burn_in = number(words[0], 0, kMaxMs, "BURN_IN_MS") * 1000000;
  const int64_t budget = number(words[1], 0, kMaxMs, "BUDGET_MS") * 1000000;
  const int64_t rounds = number(words[2], kMinRounds, kMaxRounds, "ROUNDS");
  NetworkFiles files[kMaxNetworks];
  Network networks[kMaxNetworks];
  int64_t first[kMaxNetworks];
  for (int i = 0; i < count; ++i) {
    files[i] = network_files(words + 3 + i * kNetworkWords);
    networks[i].open(tflite, files[i], threads);
    networks[i].read_images();
  }
  int64_t* durations = static_cast<int64_t*>(allocate(static_cast<size_t>(rounds * count), sizeof(int64_t)));

  const auto timed = [&](int i) {
    const int64_t began = now();
    networks[i].predict(0);
    return now() - began;
  };
  for (int i = 0; i < count; ++i) first[i] = timed(i);
  begin_record(tflite);
  printf(",\"before\":");
  print_state();
  // For all together: until each had its share, a fast network beside slow ones would take many times as long.
  const int64_t warming = now();
  while (now() - warming < burn_in) {
    for (int i = 0; i < count; ++i) timed(i);
  }
  int64_t done = 0;
  const int64_t began = now();
  while (done < rounds && (done < kMinRounds || now() - began < budget)) {
    for (int i = 0; i < count; ++i) durations[done * count + i] = timed(i);
    ++done;
  }
  printf(",\"after\":");
  print_state();
  printf(",\"networks\":[");
  for (int i = 0; i < count; ++i) {
    printf("%s{\"first_ns\":%lld,\"durations_ns\":[", i > 0 ? "," : "", whole(first[i]));
    for (int64_t round = 0; round < done; ++round) {
      printf("%s%lld", round > 0 ? "," : "", whole(durations[round * count + i]));
    }
    printf("]}");
  }
  printf("]}\n");
  free(durations);
}

}  // namespace

int run_program(int argc, char** argv) {
  const int words = argc - 4;
  const char* command = argc > 1 ? argv[1] : "";
  if (strcmp(command, "--help") == 0) {
    printf(kHelp, argv[0], argv[0], argv[0]);
    return 0;
  }
  const bool is_run = strcmp(command, "run") == 0 && words == kNetworkWords + 1;
  const bool is_start = strcmp(command, "start") == 0 && words == kNetworkWords;
  const int networks = (words - 3) / kNetworkWords;
  const bool is_time =
      strcmp(command, "time") == 0 && words == 3 + networks * kNetworkWords && networks > 0 && networks <= kMaxNetworks;
  if (!is_run && !is_start && !is_time) fail(kUsage, "these are not the arguments of run, start or time; see --help");
  TfLite tflite;
  tflite.load(argv[2]);
  if (is_run) run(tflite, argv[3], argv + 4);
  if (is_start) start(tflite, argv[3], argv + 4);
  if (is_time) time(tflite, argv[3], argv + 4, networks);
  if (fflush(nullptr) != 0) fail(kFile, "the result cannot be written (%s)", strerror(errno));
  return 0;
}

}  // namespace bssl

#ifndef __ANDROID__
int main(int argc, char** argv) { return bssl::run_program(argc, argv); }
#endif
