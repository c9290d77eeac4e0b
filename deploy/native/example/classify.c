/* Classifies one image: classify MODEL IMAGE [MEAN STD]
 *
 * MODEL is model.tflite of a bundle. IMAGE is a binary PGM or PPM of the network's size (ImageMagick:
 * `convert photo.jpg -resize 96x96^ -gravity center -extent 96x96 photo.ppm`). A model with uint8 input
 * (`bssl-tf export --input uint8`) takes the pixels as they are; for float32 input give mean and standard deviation
 * from the bundle's manifest.json, numbers with commas between them. Prints class and probability, the best first.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "bssl_tf_runtime.h"
#ifdef HAVE_TFLITE_HEADERS
#include "tensorflow/lite/c/c_api.h"
#else
#include "tflite_c_api.h"
#endif

enum { kMostChannels = 3, kShown = 5, kMostClasses = 1 << 20 };

typedef struct {
  int height, width, channels;
  unsigned char* pixels;
} Image;

static void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("classify: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

static void report(const char* line) { fprintf(stderr, "classify: %s\n", line); }

static void* room(size_t bytes) {
  void* found = malloc(bytes);
  if (found == NULL) fail("there is no memory for %zu bytes", bytes);
  return found;
}

/* A number of a PNM header, behind white space and comments. */
static int header_number(FILE* file) {
  int number = 0, digits = 0, letter = fgetc(file);
  while (letter == ' ' || letter == '\t' || letter == '\r' || letter == '\n' || letter == '#') {
    if (letter == '#') {
      do letter = fgetc(file);
      while (letter != '\n' && letter != EOF);
    }
    letter = fgetc(file);
  }
  for (; letter >= '0' && letter <= '9' && digits < 6; ++digits, letter = fgetc(file))
    number = 10 * number + letter - '0';
  return digits > 0 && digits < 6 ? number : -1;
}

static Image read_image(const char* path) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) fail("%s cannot be opened", path);
  Image image = {0, 0, 0, NULL};
  const int first = fgetc(file), kind = fgetc(file);
  if (first == 'P' && (kind == '5' || kind == '6')) {
    image.channels = kind == '5' ? 1 : 3;
    image.width = header_number(file);
    image.height = header_number(file);
    if (header_number(file) != 255) image.width = -1;
  }
  if (image.width < 1 || image.height < 1) fail("%s is no binary PGM or PPM with 8 bits per channel", path);
  const size_t bytes = (size_t)image.height * (size_t)image.width * (size_t)image.channels;
  image.pixels = room(bytes);
  if (fread(image.pixels, 1, bytes, file) != bytes) fail("%s is truncated", path);
  fclose(file);
  return image;
}

/* One number for each channel, or one for all of them. */
static void read_numbers(const char* text, int channels, float* numbers) {
  int count = 0;
  char* end = NULL;
  for (const char* place = text; count < channels; place = end + 1) {
    numbers[count] = strtof(place, &end);
    if (end == place) break;
    ++count;
    if (*end != ',') break;
  }
  const int complete = count == channels || count == 1;
  if (!complete || *end != 0) fail("%s is neither one number nor %d with commas between them", text, channels);
  for (; count < channels; ++count) numbers[count] = numbers[0];
}

static void fill(TfLiteTensor* input, const Image* image, const char* mean, const char* std) {
  const size_t count = (size_t)image->height * (size_t)image->width * (size_t)image->channels;
  if (TfLiteTensorNumDims(input) != 4 || TfLiteTensorDim(input, 1) != image->height ||
      TfLiteTensorDim(input, 2) != image->width || TfLiteTensorDim(input, 3) != image->channels) {
    fail("the image is %dx%d with %d channels, the network takes %dx%d with %d", image->width, image->height,
         image->channels, TfLiteTensorDim(input, 2), TfLiteTensorDim(input, 1), TfLiteTensorDim(input, 3));
  }
  if (TfLiteTensorType(input) == kTfLiteUInt8) {
    if (TfLiteTensorCopyFromBuffer(input, image->pixels, count) != kTfLiteOk) fail("the input cannot be set");
    return;
  }
  if (TfLiteTensorType(input) != kTfLiteFloat32) fail("the network's input is neither uint8 nor float32");
  if (std == NULL) fail("the network's input is float32: give mean and standard deviation, as in manifest.json");
  float means[kMostChannels], deviations[kMostChannels];
  read_numbers(mean, image->channels, means);
  read_numbers(std, image->channels, deviations);
  float* values = room(count * sizeof(float));
  for (size_t i = 0; i < count; ++i) {
    const size_t channel = i % (size_t)image->channels;
    values[i] = ((float)image->pixels[i] / 255.0f - means[channel]) / deviations[channel];
  }
  if (TfLiteTensorCopyFromBuffer(input, values, count * sizeof(float)) != kTfLiteOk) fail("the input cannot be set");
  free(values);
}

static void show(const TfLiteTensor* output) {
  const size_t count = TfLiteTensorByteSize(output) / sizeof(float);
  if (TfLiteTensorType(output) != kTfLiteFloat32 || count < 1 || count > kMostClasses) {
    fail("the network's output is no list of float32 logits");
  }
  float* logits = room(count * sizeof(float));
  if (TfLiteTensorCopyToBuffer(output, logits, count * sizeof(float)) != kTfLiteOk) fail("the output cannot be read");
  double largest = logits[0], sum = 0;
  for (size_t i = 1; i < count; ++i) largest = logits[i] > largest ? logits[i] : largest;
  for (size_t i = 0; i < count; ++i) sum += exp(logits[i] - largest);
  for (size_t place = 0; place < kShown && place < count; ++place) {
    size_t best = 0;
    for (size_t i = 1; i < count; ++i) best = logits[i] > logits[best] ? i : best;
    printf("%zu %.4f\n", best, exp(logits[best] - largest) / sum);
    logits[best] = -INFINITY;
  }
  free(logits);
}

int main(int count, char** words) {
  if (count != 3 && count != 5) fail("call it as: classify MODEL IMAGE [MEAN STD]");
  Image image = read_image(words[2]);

  TfLiteModel* model = TfLiteModelCreateFromFile(words[1]);
  if (model == NULL) fail("%s is no TensorFlow Lite model", words[1]);
  /* As many threads as the interpreter has. */
  TfLiteDelegate* delegate = tflite_plugin_create_delegate(NULL, NULL, 0, report);
  if (delegate == NULL) return 1;
  TfLiteInterpreterOptions* options = TfLiteInterpreterOptionsCreate();
  TfLiteInterpreterOptionsSetNumThreads(options, 2);
  TfLiteInterpreterOptionsAddDelegate(options, delegate);
  TfLiteInterpreter* interpreter = TfLiteInterpreterCreate(model, options);
  if (interpreter == NULL || TfLiteInterpreterAllocateTensors(interpreter) != kTfLiteOk) {
    fail("%s cannot be prepared", words[1]);
  }
  fill(TfLiteInterpreterGetInputTensor(interpreter, 0), &image, count == 5 ? words[3] : NULL,
       count == 5 ? words[4] : NULL);
  if (TfLiteInterpreterInvoke(interpreter) != kTfLiteOk) fail("%s cannot be run", words[1]);
  show(TfLiteInterpreterGetOutputTensor(interpreter, 0));

  TfLiteInterpreterDelete(interpreter);
  TfLiteInterpreterOptionsDelete(options);
  tflite_plugin_destroy_delegate(delegate);
  TfLiteModelDelete(model);
  free(image.pixels);
  return 0;
}
