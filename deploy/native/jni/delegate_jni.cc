// The door for Java: the native methods of bssl.tf.BsslDelegate (deploy/android).
#include <jni.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../include/bssl_tf_runtime.h"

namespace {

// `report_error` is not told for whom it is called, and variables of a thread need more than old Androids have.
pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
char wrong[160];

void keep(const char* line) {
  const size_t length = strlen(line) < sizeof(wrong) ? strlen(line) : sizeof(wrong) - 1;
  memcpy(wrong, line, length);
  wrong[length] = 0;
}

// Strings of a Java array as C has them; null stays null.
class Words {
 public:
  Words(JNIEnv* env, jobjectArray array) : env_(env), array_(array) {}

  ~Words() {
    // What is called here may be called while Java has an exception.
    for (jsize i = 0; strings_ != nullptr && words_ != nullptr && i < count_; ++i) {
      if (words_[i] != nullptr) env_->ReleaseStringUTFChars(strings_[i], words_[i]);
    }
    free(strings_);
    free(words_);
  }

  // False where memory is short; Java may have an exception then.
  bool read() {
    count_ = env_->GetArrayLength(array_);
    // One more, as nothing may be given for nothing.
    strings_ = static_cast<jstring*>(calloc(count() + 1, sizeof(jstring)));
    words_ = static_cast<char**>(calloc(count() + 1, sizeof(char*)));
    if (strings_ == nullptr || words_ == nullptr) return false;
    for (jsize i = 0; i < count_; ++i) {
      strings_[i] = static_cast<jstring>(env_->GetObjectArrayElement(array_, i));
      if (strings_[i] == nullptr) continue;
      // The runtime takes them as char* and does not write to them.
      words_[i] = const_cast<char*>(env_->GetStringUTFChars(strings_[i], nullptr));
      if (words_[i] == nullptr) return false;
    }
    return true;
  }

  char** words() const { return words_; }
  size_t count() const { return static_cast<size_t>(count_); }

 private:
  JNIEnv* env_;
  jobjectArray array_;
  jsize count_ = 0;
  jstring* strings_ = nullptr;
  char** words_ = nullptr;
};

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_bssl_tf_BsslDelegate_create(JNIEnv* env, jclass, jobjectArray keys, jobjectArray values,
                                                         jobjectArray reason) {
  Words names(env, keys), settings(env, values);
  if (!names.read() || !settings.read()) return 0;
  pthread_mutex_lock(&mutex);
  TfLiteDelegate* delegate = tflite_plugin_create_delegate(names.words(), settings.words(), names.count(), keep);
  char line[sizeof(wrong)];
  memcpy(line, wrong, sizeof(line));
  pthread_mutex_unlock(&mutex);
  if (delegate == nullptr) {
    jstring text = env->NewStringUTF(line);
    if (text != nullptr) env->SetObjectArrayElement(reason, 0, text);
  }
  return static_cast<jlong>(reinterpret_cast<intptr_t>(delegate));
}

JNIEXPORT void JNICALL Java_bssl_tf_BsslDelegate_destroy(JNIEnv*, jclass, jlong handle) {
  tflite_plugin_destroy_delegate(reinterpret_cast<TfLiteDelegate*>(static_cast<intptr_t>(handle)));
}

JNIEXPORT jstring JNICALL Java_bssl_tf_BsslDelegate_nativeVersion(JNIEnv* env, jclass) {
  return env->NewStringUTF(bssl_runtime_version());
}

JNIEXPORT jstring JNICALL Java_bssl_tf_BsslDelegate_nativeKernels(JNIEnv* env, jclass) {
  return env->NewStringUTF(bssl_runtime_kernels());
}

}  // extern "C"
