// The delegate without TensorFlow Lite: every op and many random networks of them against the plainest code, all sets
// of instructions that the processor has, several threads, changing sizes, wrong models, and no memory.
#include <limits.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <set>
#include <thread>

#include "check.h"
#include "failing_memory.h"
#include "fake_interpreter.h"
#include "profile.h"
#include "random_model.h"
#include "runtime.h"

namespace {

using fake::Bytes;
using fake::Choices;
using fake::Dims;
using fake::Interpreter;
using fake::Model;
using fake::options_of;

std::string run_and_compare(Model& model, Choices& choices) {
  Interpreter& interpreter = *model.interpreter;
  if (!interpreter.allocate()) return "not allocated: " + interpreter.error;
  model.fill(choices);
  if (!interpreter.invoke()) return "not invoked: " + interpreter.error;
  return compare_outputs(interpreter);
}

void check_run(const std::string& isa, uint64_t seed, Model& model, Choices& choices) {
  const std::string said = run_and_compare(model, choices);
  CHECK_EMPTY(said.empty() ? said : isa + ": " + said, seed);
}

void random_networks(int count, uint64_t first_seed) {
  for (const std::string& isa : runnable_isas()) {
    for (uint64_t seed = first_seed; seed < first_seed + static_cast<uint64_t>(count); ++seed) {
      Choices choices(seed);
      Model model = sound_model(choices);
      const OwnedDelegate delegate(Options{{"isa", isa}, {"num_threads", std::to_string(1 + seed % 3)}});
      CHECK(delegate.get() != nullptr);
      if (!model.interpreter->apply(delegate.get())) CHECK_EMPTY("not applied: " + model.interpreter->error, seed);
      check_run(isa, seed, model, choices);
      model.interpreter.reset();
    }
  }
}

// One convolution, resized: what is kept from one size must not be used for the next.
void sizes_change() {
  for (const std::string& isa : runnable_isas()) {
    for (int pad_values = 0; pad_values < 2; ++pad_values) {
      Choices choices(7);
      Model model;
      model.interpreter = std::make_unique<Interpreter>(2);
      Interpreter& made = *model.interpreter;
      const int input = made.tensor(kTfLiteFloat32, {1, 5, 5, 33});
      model.inputs = {input};
      const int bits = made.tensor(kTfLiteInt32, {1, 5, 5, 2});
      std::vector<uint32_t> weights;
      for (int i = 0; i < 70 * 9; ++i) {
        weights.push_back(static_cast<uint32_t>(choices.any_int()));
        weights.push_back(static_cast<uint32_t>(choices.any_int()) & 1);
      }
      const int filter = made.constant(kTfLiteInt32, {70, 3, 3, 2}, weights.data(), weights.size() * 4);
      std::vector<float> values;
      for (int i = 0; i < 70; ++i) values.push_back(choices.number());
      const int multiplier = made.constant(kTfLiteFloat32, {70}, values.data(), 280);
      const int bias = made.constant(kTfLiteFloat32, {70}, values.data(), 280);
      const int sums = made.tensor(kTfLiteFloat32, {1, 5, 5, 70});
      const int out = made.tensor(kTfLiteFloat32, {1, 5, 5, 70});
      made.custom("LceQuantize", {}, {input}, {bits});
      made.custom("LceBconv2d",
                  options_of({{"channels_in", 33},
                              {"stride_height", 1},
                              {"stride_width", 1},
                              {"dilation_height_factor", 1},
                              {"dilation_width_factor", 1},
                              {"padding", 0},
                              {"pad_values", pad_values},
                              {"fused_activation_function", 0}}),
                  {bits, filter, multiplier, bias, -1}, {sums});
      made.builtin(fake::kAdd, {sums, bias}, {out}, fake::kActivationRelu);
      made.graph_outputs({out});
      const OwnedDelegate delegate(Options{{"isa", isa}, {"num_threads", "2"}});
      CHECK(made.apply(delegate.get()));
      CHECK(made.delegated() == 2);
      for (const Dims& size : {Dims{1, 5, 5, 33}, Dims{3, 5, 5, 33}, Dims{1, 1, 1, 33}, Dims{2, 17, 30, 33},
                               Dims{1, 2, 40, 33}, Dims{1, 5, 5, 33}}) {
        CHECK(made.resize(input, size));
        check_run(isa, 7, model, choices);
        model.fill(choices);
        CHECK(made.invoke());
        CHECK_EMPTY(compare_outputs(made), 7);
      }
      CHECK(made.resize(input, {1, 5, 5, 34}));
      CHECK(!made.allocate() || !made.invoke());
      CHECK(made.resize(input, {1, 5, 5, 33}));
      check_run(isa, 7, model, choices);
    }
  }
}

void several_at_once() {
  std::vector<std::thread> users;
  for (uint64_t user = 0; user < 3; ++user) {
    users.emplace_back([user] {
      for (uint64_t seed = 100 * user; seed < 100 * user + 12; ++seed) {
        Choices choices(seed);
        Model model = sound_model(choices);
        const OwnedDelegate delegate(
            Options{{"num_threads", std::to_string(1 + seed % 4)}, {"profile", std::to_string(seed % 2)}});
        BsslNodeTime times[4];
        bssl_runtime_profile(delegate.get(), times, 4);
        CHECK(bssl_runtime_kernels()[0] != 0);
        CHECK(model.interpreter->apply(delegate.get()));
        for (int repeat = 0; repeat < 3; ++repeat) CHECK_EMPTY(run_and_compare(model, choices), seed);
        model.interpreter.reset();
      }
    });
  }
  for (std::thread& user : users) user.join();
}

// Every run of every node of ours is kept, one after another, while it is asked for, and nothing is written beyond.
void nodes_are_timed() {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Choices choices(seed);
    Model model = sound_model(choices);
    Interpreter& made = *model.interpreter;
    const OwnedDelegate delegate(Options{{"num_threads", std::to_string(1 + seed % 3)}, {"profile", "1"}});
    CHECK(made.apply(delegate.get()));
    CHECK_EMPTY(run_and_compare(model, choices), seed);
    const size_t nodes = static_cast<size_t>(made.delegated()), room = 2 * nodes;
    const BsslNodeTime untouched = {-7, -7, -7};
    std::vector<BsslNodeTime> times(room + 1, untouched);
    const int64_t begin = bssl::now_ns();
    CHECK(bssl_runtime_profile(delegate.get(), times.data(), room) == 0);
    for (int call = 0; call < 3; ++call) CHECK(made.invoke());
    CHECK(bssl_runtime_profile(delegate.get(), nullptr, 0) == static_cast<int64_t>(3 * nodes));
    const int64_t end = bssl::now_ns();
    std::set<int64_t> seen;
    int64_t last = begin;
    for (size_t i = 0; i < room; ++i) {
      CHECK(last <= times[i].begin_ns && times[i].begin_ns <= times[i].end_ns && times[i].end_ns <= end);
      last = times[i].end_ns;
      CHECK(times[i].node >= 0 && times[i].node < static_cast<int64_t>(made.model().size()));
      CHECK(seen.insert(times[i].node).second == (i < nodes));
      CHECK(times[i].node == times[i % nodes].node);
    }
    CHECK(times[room].node == -7 && times[room].end_ns == -7);
    // Off again: nothing more is written or counted.
    times.assign(room + 1, untouched);
    CHECK(made.invoke());
    CHECK(times[0].node == -7 && bssl_runtime_profile(delegate.get(), nullptr, 0) == 0);
    CHECK(bssl_runtime_profile(delegate.get(), times.data(), 0) == 0);
    CHECK(made.invoke());
    CHECK(times[0].node == -7 && bssl_runtime_profile(delegate.get(), nullptr, 0) == 0);
    model.interpreter.reset();
  }
  CHECK(bssl_runtime_profile(nullptr, nullptr, 0) == -1);
  BsslNodeTime time;
  const OwnedDelegate other(Options{{"profile", "0"}});
  CHECK(bssl_runtime_profile(other.get(), &time, 1) == -1);
}

// Two interpreters with one delegate, each in a thread of its own.
void one_delegate_times_several() {
  const OwnedDelegate delegate(Options{{"num_threads", "2"}, {"profile", "1"}});
  std::vector<Model> models;
  size_t nodes = 0;
  for (uint64_t seed : {3, 4}) {
    Choices choices(seed);
    models.push_back(sound_model(choices));
    CHECK(models.back().interpreter->apply(delegate.get()));
    CHECK_EMPTY(run_and_compare(models.back(), choices), seed);
    nodes += static_cast<size_t>(models.back().interpreter->delegated());
  }
  std::vector<BsslNodeTime> times(20 * nodes);
  bssl_runtime_profile(delegate.get(), times.data(), times.size());
  std::vector<std::thread> users;
  for (Model& model : models) {
    users.emplace_back([&model] {
      for (int call = 0; call < 20; ++call) CHECK(model.interpreter->invoke());
    });
  }
  for (std::thread& user : users) user.join();
  CHECK(bssl_runtime_profile(delegate.get(), nullptr, 0) == static_cast<int64_t>(times.size()));
  for (const BsslNodeTime& time : times) CHECK(time.begin_ns > 0 && time.begin_ns <= time.end_ns);
  for (Model& model : models) {
    CHECK_EMPTY(compare_outputs(*model.interpreter), 3);
    model.interpreter.reset();
  }
}

// Interpreters that meet one delegate at the same moment, each with other wishes: the first one's number of threads
// holds.
void one_delegate_is_met_by_several() {
  for (uint64_t round = 0; round < 40; ++round) {
    const OwnedDelegate delegate(round % 4 == 0 ? Options{{"num_threads", "3"}} : Options{});
    std::atomic<int> waiting = 4;
    std::vector<std::thread> users;
    for (uint64_t user = 0; user < 4; ++user) {
      users.emplace_back([&, seed = 4 * round + user] {
        Choices choices(seed);
        Model model = sound_model(choices);
        for (--waiting; waiting > 0;) {
        }
        CHECK(model.interpreter->apply(delegate.get()));
        for (int repeat = 0; repeat < 2; ++repeat) CHECK_EMPTY(run_and_compare(model, choices), seed);
        model.interpreter.reset();
      });
    }
    for (std::thread& user : users) user.join();
  }
}

// In a child: the model gives the right results, from a thread of its own too, and all of it can go.
[[noreturn]] void use_in_child(Model& model, OwnedDelegate*& delegate, Choices& choices, uint64_t seed) {
  alarm(300);  // rather a signal than to hang
  for (int repeat = 0; repeat < 2; ++repeat) CHECK_EMPTY(run_and_compare(model, choices), seed);
  std::thread([&] { CHECK_EMPTY(run_and_compare(model, choices), seed); }).join();
  model.interpreter.reset();
  delete delegate;
  _exit(0);
}

void check_child(pid_t process, uint64_t seed) {
  int status = 0;
  CHECK(waitpid(process, &status, 0) == process);
  CHECK_EMPTY(status == 0 ? "" : "a child ended with status " + std::to_string(status), seed);
}

// A process forks while its other threads do anything with the delegate: apply it, run nodes, or sleep.
void forks_at_any_moment() {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Choices choices(seed);
    Model model = sound_model(choices);
    auto* delegate = new OwnedDelegate(Options{{"num_threads", std::to_string(1 + seed % 5)}});
    const bool is_used_before = seed % 3 != 0;
    if (is_used_before) {
      CHECK(model.interpreter->apply(delegate->get()));
      CHECK_EMPTY(run_and_compare(model, choices), seed);
    }
    std::atomic<bool> stop = false;
    std::vector<std::thread> users;
    for (uint64_t user = 0; user < seed % 4; ++user) {
      users.emplace_back([&, own = 1000 + 4 * seed + user] {
        while (!stop) {
          Choices own_choices(own);
          Model own_model = sound_model(own_choices);
          CHECK(own_model.interpreter->apply(delegate->get()));
          for (int repeat = 0; repeat < 3; ++repeat) CHECK_EMPTY(run_and_compare(own_model, own_choices), own);
          own_model.interpreter.reset();
        }
      });
    }
    // Up to some milliseconds: helpers wait actively, give way, sleep.
    usleep(static_cast<unsigned>(choices.below(seed % 2 ? 300 : 6000)));
    for (int child = 0; child < 2; ++child) {
      const pid_t process = fork();
      CHECK(process >= 0);
      if (process == 0) {
        if (!is_used_before) CHECK(model.interpreter->apply(delegate->get()));
        // And a child of the child, before or after it has helpers of its own.
        if (child == 1) CHECK_EMPTY(run_and_compare(model, choices), seed);
        const pid_t further = fork();
        CHECK(further >= 0);
        if (further != 0) check_child(further, seed);
        use_in_child(model, delegate, choices, seed);
      }
      check_child(process, seed);
    }
    stop = true;
    for (std::thread& user : users) user.join();
    if (is_used_before) CHECK_EMPTY(run_and_compare(model, choices), seed);
    model.interpreter.reset();
    delete delegate;
  }
}

// Everything an op of a model has, so that each thing can be made wrong.
struct OpParts {
  std::string name = "LceBconv2d";
  std::map<std::string, int64_t> options = {
      {"channels_in", 64},          {"stride_height", 1}, {"stride_width", 1}, {"dilation_height_factor", 1},
      {"dilation_width_factor", 1}, {"padding", 0},       {"pad_values", 1},   {"fused_activation_function", 0}};
  bool no_options = false;
  int input_type = kTfLiteInt32, filter_type = kTfLiteInt32, output_type = kTfLiteFloat32, vector_type = kTfLiteFloat32;
  Dims input = {1, 4, 4, 2}, filter = {8, 3, 3, 2}, output = {1, 4, 4, 8}, vector = {8};
  float scale = 0.5f;
  size_t filter_bytes = 8 * 9 * 2 * 4, vector_bytes = 32;
  bool constant_filter = true, constant_vector = true;
  int inputs = 5, outputs = 1, first_input = 0;
};

// Builds it, and does all that an interpreter does with it. True where it ran.
bool runs(const OpParts& parts, std::string* error = nullptr, int threads = 1, size_t memory = size_t{1} << 24) {
  Interpreter made(threads);
  made.memory_limit = memory;
  const Bytes zeros(1 << 16);
  const int input = made.tensor(parts.input_type, parts.input, parts.scale);
  const int filter = parts.constant_filter
                         ? made.constant(parts.filter_type, parts.filter, zeros.data(), parts.filter_bytes)
                         : made.tensor(parts.filter_type, parts.filter);
  const auto vector = [&](int type) {
    return parts.constant_vector ? made.constant(type, parts.vector, zeros.data(), parts.vector_bytes)
                                 : made.tensor(type, parts.vector);
  };
  const bool bits = parts.output_type == kTfLiteInt32;
  const int multiplier = vector(parts.vector_type), bias = vector(parts.vector_type);
  const int output = made.tensor(parts.output_type, parts.output, parts.scale);
  const bool convolution = parts.name == "LceBconv2d";
  Dims inputs = {parts.first_input == 0 ? input : parts.first_input};
  if (convolution) {
    inputs.insert(inputs.end(), {filter, bits ? -1 : multiplier, bits ? -1 : bias, bits ? multiplier : -1});
    inputs.resize(static_cast<size_t>(parts.inputs), -1);
  } else if (parts.inputs != 5) {
    inputs.resize(static_cast<size_t>(parts.inputs), input);
  }
  made.custom(parts.name, parts.no_options ? Bytes() : options_of(parts.options, 8), inputs,
              parts.outputs == 1 ? Dims{output} : Dims{});
  made.graph_outputs({output});
  const OwnedDelegate delegate(Options{});
  const bool ran = made.apply(delegate.get()) && made.allocate() && made.invoke();
  if (error != nullptr) *error = made.error;
  return ran;
}

void wrong_models_are_refused() {
  CHECK(runs(OpParts()));
  std::vector<std::function<void(OpParts&)>> changes = {
      [](OpParts& p) { p.no_options = true; },
      [](OpParts& p) { p.input_type = kTfLiteFloat32; },
      [](OpParts& p) { p.input = {4, 4, 2}; },
      [](OpParts& p) { p.input = {}; },
      [](OpParts& p) { p.input = {1, 4, 4, 3}; },
      [](OpParts& p) { p.input = {0, 4, 4, 2}; },
      [](OpParts& p) { p.input = {1, 1 << 24, 1 << 24, 2}; },
      [](OpParts& p) { p.input = {-1, 4, 4, 2}; },
      [](OpParts& p) { p.input = {1, INT_MAX, INT_MAX, 2}; },
      [](OpParts& p) { p.input = {1, 1, 4, 4, 2}; },
      [](OpParts& p) { p.filter_type = kTfLiteInt8; },
      [](OpParts& p) { p.filter = {8, 3, 6}; },
      [](OpParts& p) { p.filter = {8, 3, 3, 0}; },
      [](OpParts& p) { p.filter = {8, 3, -3, 2}; },
      [](OpParts& p) { p.filter = {8, 3, 3, 3}; },
      [](OpParts& p) { p.filter = {8, 4, 4, 2}; },
      [](OpParts& p) { p.filter = {8, 1 << 14, 1 << 14, 2}; },
      [](OpParts& p) { p.filter_bytes = 8 * 9 * 2 * 4 - 1; },
      [](OpParts& p) { p.filter_bytes = 0; },
      [](OpParts& p) { p.constant_filter = false; },
      [](OpParts& p) { p.constant_vector = false; },
      [](OpParts& p) { p.vector = {7}; },
      [](OpParts& p) { p.vector_bytes = 28; },
      [](OpParts& p) { p.vector_bytes = 0; },
      [](OpParts& p) { p.vector_type = kTfLiteInt8; },
      [](OpParts& p) { p.output_type = kTfLiteInt64; },
      [](OpParts& p) { p.output_type = kTfLiteInt32; },  // the thresholds are floats
      [](OpParts& p) { p.output_type = kTfLiteInt8, p.scale = 0; },
      [](OpParts& p) { p.output_type = kTfLiteInt8, p.scale = -1; },
      [](OpParts& p) { p.output_type = kTfLiteInt8, p.scale = __builtin_nanf(""); },
      [](OpParts& p) { p.inputs = 4; },
      [](OpParts& p) { p.inputs = 0; },
      [](OpParts& p) { p.inputs = 6; },
      [](OpParts& p) { p.outputs = 0; },
      [](OpParts& p) { p.first_input = -1; },
      [](OpParts& p) { p.options["padding"] = 1, p.input = {1, 2, 4, 2}; },
      // Groups: of less than a word, or of unequal output channels.
      [](OpParts& p) { p.filter = {8, 3, 3, 1}, p.filter_bytes /= 2, p.options["channels_in"] = 63; },
      [](OpParts& p) { p.filter = {7, 3, 3, 1}, p.vector = {7}, p.filter_bytes /= 2, p.vector_bytes = 28; },
  };
  for (const auto& [name, value] : OpParts().options) {
    changes.push_back([name = name](OpParts& p) { p.options.erase(name); });
    if (name == "fused_activation_function") continue;
    for (int64_t wrong : {int64_t{-1}, int64_t{INT_MIN}, int64_t{INT_MAX}, int64_t{1} << 32, int64_t{1} << 62}) {
      changes.push_back([name = name, wrong](OpParts& p) { p.options[name] = wrong; });
    }
    if (name != "padding" && name != "pad_values") {
      changes.push_back([name = name](OpParts& p) { p.options[name] = 0; });
    }
  }
  for (size_t i = 0; i < changes.size(); ++i) {
    OpParts parts;
    changes[i](parts);
    std::string error;
    const bool ran = runs(parts, &error);
    // A stride beyond the image is no mistake: one position is left.
    const bool stride = parts.options["stride_height"] > 4 || parts.options["stride_width"] > 4;
    if (ran && !stride) CHECK_EMPTY("change " + std::to_string(i) + " was not refused", i);
    if (!ran && error.find("bssl-tf runtime: ") == std::string::npos) {
      CHECK_EMPTY("change " + std::to_string(i) + " was refused without a word: " + error, i);
    }
  }

  OpParts pool;
  pool.name = "LceBMaxPool2d";
  pool.options = {{"filter_height", 2}, {"filter_width", 2}, {"stride_height", 2}, {"stride_width", 2}, {"padding", 0}};
  pool.output_type = kTfLiteInt32;
  pool.output = {1, 2, 2, 2};
  CHECK(runs(pool));
  for (const auto& [name, value] : pool.options) {
    for (int64_t wrong : {int64_t{-1}, int64_t{INT_MIN}, int64_t{INT_MAX}, int64_t{1} << 32}) {
      OpParts parts = pool;
      parts.options[name] = wrong;
      CHECK(!runs(parts));
    }
    OpParts parts = pool;
    parts.options.erase(name);
    CHECK(!runs(parts));
  }
  for (const auto& change : std::vector<std::function<void(OpParts&)>>{
           [](OpParts& p) { p.no_options = true; }, [](OpParts& p) { p.input_type = kTfLiteFloat32; },
           [](OpParts& p) { p.output_type = kTfLiteInt8; }, [](OpParts& p) { p.input = {4, 4}; },
           [](OpParts& p) { p.inputs = 0; }, [](OpParts& p) { p.inputs = 2; }, [](OpParts& p) { p.outputs = 0; },
           [](OpParts& p) { p.first_input = -1; }}) {
    OpParts parts = pool;
    change(parts);
    CHECK(!runs(parts));
  }

  OpParts quantize;
  quantize.name = "LceQuantize";
  quantize.input_type = kTfLiteFloat32;
  quantize.output_type = kTfLiteInt32;
  quantize.input = {1, 4, 4, 40};
  quantize.output = {1, 4, 4, 2};
  CHECK(runs(quantize));
  OpParts dequantize;
  dequantize.name = "LceDequantize";
  dequantize.output = {1, 4, 4, 40};
  CHECK(runs(dequantize));
  for (const OpParts& op : {quantize, dequantize}) {
    for (const auto& change : std::vector<std::function<void(OpParts&)>>{
             [](OpParts& p) { p.input_type = kTfLiteInt64; }, [](OpParts& p) { p.output_type = kTfLiteInt64; },
             [](OpParts& p) { p.input = {}; }, [](OpParts& p) { p.input = {1, -4, 4, 2}; },
             [](OpParts& p) { p.input = {1, INT_MAX, INT_MAX, INT_MAX}; }, [](OpParts& p) { p.inputs = 0; },
             [](OpParts& p) { p.inputs = 2; }, [](OpParts& p) { p.outputs = 0; },
             [](OpParts& p) { p.first_input = -1; }}) {
      OpParts parts = op;
      change(parts);
      CHECK(!runs(parts));
    }
  }
  for (const Dims& output :
       {Dims{1, 4, 4, 65}, Dims{1, 4, 4, 32}, Dims{1, 4, 4, 0}, Dims{1, 4, 4, -40}, Dims{40}, Dims{}}) {
    OpParts parts = dequantize;
    parts.output = output;
    CHECK(!runs(parts));
  }
  OpParts other;
  other.name = "LceFuture";
  CHECK(!runs(other));
}

// A tiny model may not make the library take hundreds of megabytes.
void no_huge_allocations() {
  for (const char* name : {"dilation_width_factor", "dilation_height_factor", "stride_width", "stride_height"}) {
    for (int power = 12; power <= 24; ++power) {
      for (const Dims& filter : {Dims{8, 1, 3, 2}, Dims{8, 3, 1, 2}, Dims{8, 3, 3, 2}}) {
        for (int pad_values = 0; pad_values < 2; ++pad_values) {
          OpParts parts;
          parts.filter = filter;
          parts.filter_bytes = static_cast<size_t>(filter[0] * filter[1] * filter[2] * filter[3] * 4);
          parts.options[name] = int64_t{1} << power;
          parts.options["pad_values"] = pad_values;
          largest_allocation = 0;
          runs(parts, nullptr, 2);
          if (largest_allocation > size_t{1} << 28) {
            CHECK_EMPTY(std::string(name) + " of 2^" + std::to_string(power) + " asks for " +
                            std::to_string(largest_allocation) + " bytes",
                        pad_values);
          }
        }
      }
    }
  }
}

// Sizes and attributes up to the limits of their types, in every mixture: no sum or product of them overflows, and none
// makes the library take hundreds of megabytes.
void extreme_sizes() {
  int ran = 0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    Choices choices(seed, 512);
    const auto size = [&] {
      if (choices.below(3) != 0) return 1 + choices.below(4);
      const int power = 1 << choices.below(25);
      return choices.among({power - 1, power, power, power + 1, 1});
    };
    OpParts parts;
    const int words = choices.among({1, 1, 1, 2, 32, 1 << 14}), taps = (1 << 14) / words;
    const int height = choices.among({1, 1, 2, 3, taps}), width = choices.among({1, 1, 2, 3, taps});
    if (height * width > taps) continue;
    parts.filter = {1, height, width, words};
    parts.filter_bytes = static_cast<size_t>(parts.filter[1]) * static_cast<size_t>(parts.filter[2] * words) * 4;
    parts.vector = {1}, parts.vector_bytes = 4;
    parts.input = {choices.below(4) == 0 ? size() : 1, size(), size(), words};
    parts.output = {1, 1, 1, 1};
    parts.options["channels_in"] = 32 * words;
    for (const char* name : {"stride_height", "stride_width", "dilation_height_factor", "dilation_width_factor"}) {
      parts.options[name] = size();
    }
    parts.options["padding"] = choices.below(2);
    parts.options["pad_values"] = choices.below(2);
    largest_allocation = 0;
    ran += runs(parts, nullptr, 2, size_t{1} << 18);
    if (largest_allocation > size_t{1} << 28) {
      CHECK_EMPTY("asks for " + std::to_string(largest_allocation) + " bytes", seed);
    }
  }
  printf("extreme sizes: %d of 1000 ran\n", ran);
  CHECK(ran > 100 && ran < 900);
}

void wild_models() {
  int applied = 0, ran = 0;
  for (uint64_t seed = 0; seed < 6000; ++seed) {
    Choices choices(seed, 2048);
    Model model = wild_model(choices);
    const OwnedDelegate delegate(Options{});
    if (model.interpreter->apply(delegate.get())) {
      ++applied;
      if (model.interpreter->allocate()) {
        model.fill(choices);
        ran += model.interpreter->invoke();
      }
    }
    model.interpreter.reset();
  }
  // Otherwise they would all be refused at the first look, and try nothing.
  printf("wild models: %d of 6000 applied, %d ran\n", applied, ran);
  CHECK(applied > 2000 && ran > 200);
}

void memory_runs_out() {
  int refused = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    for (int left = 0; left < 60; ++left) {
      Choices choices(seed);
      Model model = sound_model(choices);
      bool fine = true;
      {
        allocations_left = left;
        const OwnedDelegate delegate(Options{{"num_threads", "2"}});
        fine = delegate.get() != nullptr && model.interpreter->apply(delegate.get()) && model.interpreter->allocate();
        if (fine) {
          model.fill(choices);
          fine = model.interpreter->invoke();
        }
        const bool enough = allocations_left > 0;
        allocations_left = INT_MAX;
        if (fine) CHECK_EMPTY(compare_outputs(*model.interpreter), seed);
        if (enough) CHECK(fine);
        model.interpreter.reset();
        if (enough) break;
      }
      refused += !fine;
    }
  }
  CHECK(refused > 100);
}

void wrong_options_are_refused() {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, std::string>>{{"num_threads", "0"},
                                                        {"num_threads", "-1"},
                                                        {"num_threads", "65"},
                                                        {"num_threads", ""},
                                                        {"num_threads", "2x"},
                                                        {"num_threads", "99999999999999999999"},
                                                        {"isa", ""},
                                                        {"isa", "Portable"},
                                                        {"isa", "sse"},
                                                        {"", ""},
                                                        {"colour", "1"},
                                                        {"profile", ""},
                                                        {"profile", "2"},
                                                        {"profile", "10"}}) {
    const OwnedDelegate delegate(Options{{key, value}});
    CHECK(delegate.get() == nullptr && last_error().find("bssl-tf runtime: ") == 0);
  }
#if defined(__x86_64__)
  CHECK(OwnedDelegate(Options{{"isa", "neon"}}).get() == nullptr);
#elif defined(__aarch64__)
  CHECK(OwnedDelegate(Options{{"isa", "avx2"}}).get() == nullptr);
#endif
  char key[] = "colour", value[] = "1";
  char *keys[] = {key}, *values[] = {value};
  CHECK(tflite_plugin_create_delegate(keys, values, 1, nullptr) == nullptr);
  tflite_plugin_destroy_delegate(nullptr);
  CHECK(strlen(bssl_runtime_version()) > 0 && strstr(bssl_runtime_kernels(), "portable") != nullptr);
}

}  // namespace

int main(int count, char** names) {
  const std::map<std::string, std::function<void()>> tests = {
      {"options", wrong_options_are_refused},
      {"random", [] { random_networks(1500, 0); }},
      {"sizes", sizes_change},
      {"threads", several_at_once},
      {"wrong", wrong_models_are_refused},
      {"wild", wild_models},
      {"memory", memory_runs_out},
      {"huge", no_huge_allocations},
      {"profile", nodes_are_timed},
      {"shared", one_delegate_times_several},
      {"met", one_delegate_is_met_by_several},
      {"forks", forks_at_any_moment},
      {"extremes", extreme_sizes},
      {"few", [] { random_networks(150, 5000); }},
  };
  if (count < 2) {
    fprintf(stderr, "usage: %s TEST...\n", names[0]);
    for (const auto& [name, test] : tests) fprintf(stderr, "  %s\n", name.c_str());
    return 2;
  }
  for (int i = 1; i < count; ++i) {
    const auto found = tests.find(names[i]);
    if (found == tests.end()) {
      fprintf(stderr, "there is no test %s\n", names[i]);
      return 2;
    }
    found->second();
    printf("%s: ok\n", names[i]);
    fflush(stdout);
  }
}
