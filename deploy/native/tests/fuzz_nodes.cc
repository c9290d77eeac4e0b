// libFuzzer target: whole models. The first byte picks between models that are sound, whose results are compared with
// those of the plainest code, and such as a stranger might make, which must only be survived.
#include <stdio.h>
#include <stdlib.h>

#include "random_model.h"
#include "runtime.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fake::Choices choices(data, size);
  const bool sound = choices.below(2) == 0;
  static const std::vector<std::string> isas = runnable_isas();
  const OwnedDelegate delegate(Options{{"isa", isas[static_cast<size_t>(choices.below(static_cast<int>(isas.size())))]},
                                       {"num_threads", "1"},
                                       {"profile", "1"}});
  BsslNodeTime times[4];
  bssl_runtime_profile(delegate.get(), times, 4);
  fake::Model model = sound ? sound_model(choices) : wild_model(choices);
  if (model.interpreter->apply(delegate.get()) && model.interpreter->allocate()) {
    model.fill(choices);
    const bool ran = model.interpreter->invoke();
    const std::string wrong = !sound ? "" : ran ? compare_outputs(*model.interpreter) : "not invoked";
    if (!wrong.empty()) {
      fprintf(stderr, "%s\n", wrong.c_str());
      abort();
    }
  } else if (sound) {
    fprintf(stderr, "a sound model was refused: %s\n", model.interpreter->error.c_str());
    abort();
  }
  model.interpreter.reset();
  return 0;
}
