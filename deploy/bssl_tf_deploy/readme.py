"""The README that lies in every bundle."""

from __future__ import annotations

import textwrap

from bssl_tf_deploy.library import bundled_name
from bssl_tf_deploy.manifest import Manifest

_PYTHON = """    pip install bssl_tf_deploy-*.whl     # brings numpy, Pillow and LiteRT; nothing to compile
    bssl-tf-deploy run . examples/*.png
    bssl-tf-deploy bench .

`make wheels` in bssl-tf's sources makes the wheel. The examples are test images, named after their true class; any
other image will do. Both commands check the files against their hashes and the model against its golden outputs first.

Without the package, any TFLite interpreter for this target runs the model with the library that lies here:

    from ai_edge_litert.interpreter import Interpreter, load_delegate

    runtime = load_delegate("{library}", {{"num_threads": "4"}})
    interpreter = Interpreter("model.tflite", num_threads=4, experimental_delegates=[runtime])
"""
_ANDROID = """    adb push model.tflite {library} benchmark_model /data/local/tmp
    adb shell chmod +x /data/local/tmp/benchmark_model
    adb shell /data/local/tmp/benchmark_model --graph=/data/local/tmp/model.tflite \\
        --external_delegate_path=/data/local/tmp/libbssl_tf_runtime.so \\
        --external_delegate_options=num_threads:4 --num_threads=4

`benchmark_model` is TensorFlow Lite's, prebuilt for android_aarch64; it times the model. In an app, load the library as
an external delegate of TFLite. It needs 64-bit Android 7 or newer and has not been tried on a phone.

On Linux, `bssl-tf run . examples/*.png` classifies the examples with this bundle.
"""
_HOW = {
    "arm64": "On a Raspberry Pi or another ARM machine with 64-bit Linux{glibc}:\n\n" + _PYTHON,
    "x86_64": "On x86 machines with 64-bit Linux{glibc}:\n\n" + _PYTHON,
    "android-arm64": "On Android:\n\n" + _ANDROID,
}
_WITHOUT = "This bundle was made without a runtime library; `bssl-tf run . examples/*.png` classifies the examples.\n"


def readme(manifest: Manifest, *, library: bool) -> str:
    """Markdown that says what the bundle is and how to run it; ends with a line break.

    Args:
        manifest: of the bundle.
        library: whether the bundle has a runtime library.
    """
    how = _HOW[manifest.target] if library else _WITHOUT
    needed = manifest.created_by.get("runtime-glibc")
    how = how.format(library=bundled_name(manifest.target), glibc=f" (glibc {needed} or newer)" if needed else "")
    p, parity, binary = manifest.preprocessing, manifest.parity, manifest.binary
    signature, training = manifest.signature, manifest.training
    logits = signature.output
    origin = "Made from a Keras model that was not trained with bssl-tf."
    if training is not None:
        origin = (
            f"Trained without labels (method {training.method}, seed {training.seed}), with a linear probe on its "
            f"frozen features.\nThe probe's top-1 accuracy on {training.data}, before conversion: "
            f"{training.linear_probe_top1_percent:.1f} %."
        )
    accuracy = "- Accuracy of this model: not measured, as there were no labelled test images of these classes."
    if manifest.accuracy is not None:
        accuracy = (
            f"- Top-1 accuracy of this model on {manifest.accuracy.images} test images: "
            f"{manifest.accuracy.top1_percent:.2f} % ({manifest.accuracy.keras_top1_percent:.2f} % in Keras, float32)."
        )
    colours = "grey" if p.channels == 1 else "RGB"
    square = f"{colours}, central square, {p.image_size} x {p.image_size} pixels (bilinear, antialiased)"
    then = ", then\n  (pixel / 255 - mean) / std with the constants of `manifest.json`."
    if signature.input.dtype == "uint8":
        then = ";\n  the network takes these pixels, 0 to 255, and normalises them itself."
    convolutions = f"{binary.binary_convolutions} binary and {binary.float_convolutions} float convolutions"
    rounded = ""
    if binary.int8_operators:
        convolutions += f", {binary.int8_operators} convolutions and dense operators in int8"
        rounded = ", rounded in the same way"
    if signature.input.quantization is not None:
        then = ", then\n  (pixel / 255 - mean) / std, then int8, with the constants of `manifest.json`."
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.created_by.items()))
    made_with = textwrap.fill(f"- Made with {versions}.", 118, subsequent_indent="  ", break_long_words=False)
    return f"""# {manifest.network.backbone} for {manifest.target}

Classifies images into {len(manifest.labels)} classes.
{origin}

{how}
- `model.tflite`:
  - {convolutions}, {binary.weight_bytes / 1024:.1f} KiB of weights
  - input `{signature.input.name}` {signature.input.dtype} {list(signature.input.shape)}
  - output `{logits.name}` {logits.dtype} {list(logits.shape)}, one logit for each label of `manifest.json`
  - LceQuantize and LceBconv2d are operators of Larq Compute Engine; a stock TFLite interpreter does not have them
- Preprocessing: {square}{then}
{accuracy}
- Same best class as the Keras network{rounded}: {100 * parity.top1_agreement:.2f} % of {parity.images} images.
- It gives one of its classes to every image, also to one that shows none of them.
{made_with}
"""
