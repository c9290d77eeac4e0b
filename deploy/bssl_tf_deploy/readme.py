"""The README of every bundle."""

from __future__ import annotations

import textwrap

from bssl_tf_deploy.boxes import FILL
from bssl_tf_deploy.library import bundled_name
from bssl_tf_deploy.manifest import Manifest
from bssl_tf_deploy.tasks import find_task

_PYTHON = """    pip install bssl_tf_deploy-*.whl     # installs numpy, Pillow and LiteRT too; nothing to compile
    bssl-tf-deploy run . examples/*.png
    bssl-tf-deploy bench .

`make wheels` in bssl-tf's sources builds the wheel. The examples are images from the comparison with Keras, named after
their true class where known; any other image will do. Both commands first check the files against their hashes and the
model against its golden outputs.

Without the package, any TFLite interpreter for this target can run the model with the library in this folder:

    from ai_edge_litert.interpreter import Interpreter, load_delegate

    runtime = load_delegate("{library}", {{"num_threads": "4"}})
    interpreter = Interpreter("model.tflite", num_threads=4, experimental_delegates=[runtime])
"""
_ANDROID = """    adb push model.tflite {library} benchmark_model /data/local/tmp
    adb shell chmod +x /data/local/tmp/benchmark_model
    adb shell /data/local/tmp/benchmark_model --graph=/data/local/tmp/model.tflite \\
        --external_delegate_path=/data/local/tmp/libbssl_tf_runtime.so \\
        --external_delegate_options=num_threads:4 --num_threads=4

`benchmark_model` is TensorFlow Lite's, prebuilt for android_aarch64; it times the model. So does
`bssl-tf bench . --device adb --tflite-library tensorflow-lite-2.16.1.aar`, with a runner of its own.

{app}
From native code, put the library into `jniLibs/arm64-v8a`. It is an external delegate of TFLite: create one for each
interpreter and pass it in through TFLite's C API before creating the interpreter:

    void* library = dlopen("libbssl_tf_runtime.so", RTLD_NOW);
    TfLiteDelegate* (*create)(char**, char**, size_t, void (*)(const char*)) =
        dlsym(library, "tflite_plugin_create_delegate");
    void (*destroy)(TfLiteDelegate*) = dlsym(library, "tflite_plugin_destroy_delegate");
    char *keys[] = {{"num_threads"}}, *values[] = {{"4"}};
    TfLiteDelegate* delegate = create(keys, values, 1, NULL);
    TfLiteInterpreterOptionsAddDelegate(options, delegate);
    /* create the interpreter, run it, delete it; then: */
    destroy(delegate);

It needs 64-bit Android 7 or newer and has not been tested on a phone.

On Linux, `bssl-tf run . examples/*.png` runs this bundle on the examples.
"""
_APP = """In an app, use the library that `make android` builds in bssl-tf's sources: copy `bssl-tf-*.aar` to `app/libs`
and `manifest.json` and `model.tflite` of this folder to `app/src/main/assets/bundle`. In `app/build.gradle.kts`:

    implementation(fileTree("libs") {{ include("bssl-tf-*.aar") }})
    implementation("org.tensorflow:tensorflow-lite:2.16.1")

{kotlin}"""
_KOTLIN = {
    "classification": """In Kotlin, with a `bitmap`:

    import bssl.tf.BsslClassifier
    import bssl.tf.BsslPicture

    val classifier = BsslClassifier.fromAssets(context.assets, "bundle")
    for ((label, score) in classifier.classify(BsslPicture.ofBitmap(bitmap))) {
        println("$label: $score")
    }
    classifier.close()
""",
    "detection": """In Kotlin, with a `bitmap`:

    import bssl.tf.BsslDetector
    import bssl.tf.BsslPicture

    val detector = BsslDetector.fromAssets(context.assets, "bundle")
    for (box in detector.detect(BsslPicture.ofBitmap(bitmap))) {
        println("${box.label}: ${box.score}, ${box.left} ${box.top} ${box.right} ${box.bottom}")
    }
    detector.close()
""",
}
_OTHER_TASK = """In Kotlin, with the `model` in a direct `ByteBuffer`; the app prepares inputs and reads outputs itself:

    import bssl.tf.BsslDelegate
    import org.tensorflow.lite.Interpreter

    val delegate = BsslDelegate()
    val interpreter = Interpreter(model, Interpreter.Options().addDelegate(delegate))
    interpreter.run(input, output)
    interpreter.close()
    delegate.close()
"""
_HOW = {
    "arm64": "On a Raspberry Pi or another ARM machine with 64-bit Linux{glibc}:\n\n" + _PYTHON,
    "x86_64": "On x86 machines with 64-bit Linux{glibc}:\n\n" + _PYTHON,
    "android-arm64": "On Android:\n\n" + _ANDROID,
}
_WITHOUT = "This bundle was made without a runtime library; `bssl-tf run . examples/*.png` runs it on the examples.\n"


def readme(manifest: Manifest, *, library: bool) -> str:
    """Markdown that states what the bundle is and how to run it; ends with a line break.

    Args:
        manifest: of the bundle.
        library: whether the bundle has a runtime library.
    """
    task = find_task(manifest.task)
    how = _HOW[manifest.target] if library else _WITHOUT
    needed = manifest.created_by.get("runtime-glibc")
    app = _APP.format(kotlin=_KOTLIN.get(manifest.task, _OTHER_TASK))
    glibc = f" (glibc {needed} or newer)" if needed else ""
    how = how.format(library=bundled_name(manifest.target), glibc=glibc, app=app)
    binary, meanings = manifest.binary, task.output_meanings(manifest)
    convolutions = f"{binary.binary_convolutions} binary and {binary.float_convolutions} float convolutions"
    if binary.int8_operators:
        convolutions += f", {binary.int8_operators} convolutions and dense operators in int8"
    ends = [f"  - input `{one.name}` {one.dtype} {list(one.shape)}" for one in manifest.inputs]
    ends += [f"  - output `{one.name}` {one.dtype} {list(one.shape)}, {meanings[one.name]}" for one in manifest.outputs]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.created_by.items()) if version)
    commit = f" of commit {manifest.commit}" if manifest.commit else ""
    points = [
        f"Preprocessing: {_preprocessing(manifest)}",
        *task.claims(manifest),
        f"Made by bssl-tf{commit} with {versions}.",
    ]
    listed = "\n".join(_filled(f"- {point}", "  ") for point in points)
    lines = "\n".join(ends)
    return f"""# {manifest.network.backbone} for {manifest.target}

{task.purpose(manifest)}
{_filled(_origin(manifest))}

{how}
- `model.tflite`:
  - {convolutions}, {binary.weight_bytes / 1024:.1f} KiB of weights
{lines}
  - LceQuantize and LceBconv2d are operators of Larq Compute Engine, which a stock TFLite interpreter lacks
{listed}
"""


def _origin(manifest: Manifest) -> str:
    training = manifest.training
    if training is None:
        return "Made from a Keras model that was not trained with bssl-tf."
    how = f"method {training.method} on {training.data}, seed {training.seed}"
    if training.labels_used is None:
        return f"The backbone was trained without labels ({how})."
    return f"The backbone was trained with the help of {training.labels_used} ({how})."


def _preprocessing(manifest: Manifest) -> str:
    p, about = manifest.preprocessing, manifest.inputs[0]
    part = "central square" if p.width == p.height else "largest central part of this shape"
    if find_task(manifest.task).frame(manifest) == "letterbox":
        part = f"all of the picture in its true shape, in the middle, grey ({FILL}) around it"
    then = {
        "uint8": "; the network takes these pixels, 0 to 255, and normalises them itself.",
        "int8": ", then (pixel / 255 - mean) / std, then int8, with the constants of `manifest.json`.",
        "float32": ", then (pixel / 255 - mean) / std with the constants of `manifest.json`.",
    }
    colours = "grey" if p.channels == 1 else "RGB"
    return f"{colours}, {part}, {p.width} x {p.height} pixels (bilinear, antialiased){then[about.dtype]}"


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
