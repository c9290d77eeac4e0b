/* The native half of the tests' org.tensorflow.lite.Interpreter: TensorFlow Lite's C library. */
#include <jni.h>
#include <stdint.h>
#include <stdlib.h>

#include "tflite_c_api.h"

TfLiteModel* TfLiteModelCreate(const void* data, size_t bytes);
int32_t TfLiteInterpreterGetInputTensorCount(const TfLiteInterpreter* interpreter);
int32_t TfLiteInterpreterGetOutputTensorCount(const TfLiteInterpreter* interpreter);

#define METHOD(type, name) JNIEXPORT type JNICALL Java_org_tensorflow_lite_Interpreter_##name

typedef struct {
  TfLiteModel* model;
  TfLiteInterpreterOptions* options;
  TfLiteInterpreter* interpreter;
} Made;

static void end(Made* made) {
  if (made->interpreter != NULL) TfLiteInterpreterDelete(made->interpreter);
  TfLiteInterpreterOptionsDelete(made->options);
  if (made->model != NULL) TfLiteModelDelete(made->model);
  free(made);
}

METHOD(jlong, make)(JNIEnv* env, jclass class, jobject model, jint threads, jlongArray delegates) {
  (void)class;
  Made* made = calloc(1, sizeof(Made));
  made->options = TfLiteInterpreterOptionsCreate();
  TfLiteInterpreterOptionsSetNumThreads(made->options, threads);
  const jsize count = (*env)->GetArrayLength(env, delegates);
  for (jsize i = 0; i < count; ++i) {
    jlong handle = 0;
    (*env)->GetLongArrayRegion(env, delegates, i, 1, &handle);
    TfLiteInterpreterOptionsAddDelegate(made->options, (TfLiteDelegate*)(intptr_t)handle);
  }
  const void* data = (*env)->GetDirectBufferAddress(env, model);
  made->model = TfLiteModelCreate(data, (size_t)(*env)->GetDirectBufferCapacity(env, model));
  if (made->model != NULL) made->interpreter = TfLiteInterpreterCreate(made->model, made->options);
  if (made->interpreter == NULL || TfLiteInterpreterAllocateTensors(made->interpreter) != kTfLiteOk) {
    end(made);
    return 0;
  }
  return (jlong)(intptr_t)made;
}

METHOD(jint, inputs)(JNIEnv* env, jclass class, jlong handle) {
  (void)env, (void)class;
  return TfLiteInterpreterGetInputTensorCount(((Made*)(intptr_t)handle)->interpreter);
}

METHOD(jint, outputs)(JNIEnv* env, jclass class, jlong handle) {
  (void)env, (void)class;
  return TfLiteInterpreterGetOutputTensorCount(((Made*)(intptr_t)handle)->interpreter);
}

METHOD(jboolean, setInput)(JNIEnv* env, jclass class, jlong handle, jint index, jobject content) {
  (void)class;
  TfLiteTensor* tensor = TfLiteInterpreterGetInputTensor(((Made*)(intptr_t)handle)->interpreter, index);
  const size_t bytes = (size_t)(*env)->GetDirectBufferCapacity(env, content);
  return TfLiteTensorCopyFromBuffer(tensor, (*env)->GetDirectBufferAddress(env, content), bytes) == kTfLiteOk;
}

METHOD(jboolean, invoke)(JNIEnv* env, jclass class, jlong handle) {
  (void)env, (void)class;
  return TfLiteInterpreterInvoke(((Made*)(intptr_t)handle)->interpreter) == kTfLiteOk;
}

METHOD(jboolean, getOutput)(JNIEnv* env, jclass class, jlong handle, jint index, jobject content) {
  (void)class;
  const TfLiteTensor* tensor = TfLiteInterpreterGetOutputTensor(((Made*)(intptr_t)handle)->interpreter, index);
  const size_t bytes = (size_t)(*env)->GetDirectBufferCapacity(env, content);
  return TfLiteTensorCopyToBuffer(tensor, (*env)->GetDirectBufferAddress(env, content), bytes) == kTfLiteOk;
}

METHOD(void, delete)(JNIEnv* env, jclass class, jlong handle) {
  (void)env, (void)class;
  end((Made*)(intptr_t)handle);
}
