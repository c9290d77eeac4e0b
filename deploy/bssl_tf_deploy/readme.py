"""The README that lies in every bundle."""

from __future__ import annotations

from bssl_tf_deploy.manifest import Manifest

_NO_RUNTIME = (
    "This version runs bundles in the interpreter of Larq Compute Engine (LCE), which `pip install bssl-tf` brings to\n"
    "Linux x86-64 and macOS.\nOn {} the model needs an interpreter with LCE's operators, built from its source."
)
_WHERE = {
    "x86_64": "This runs in LCE's interpreter, which `pip install bssl-tf` brings along.",
    "arm64": _NO_RUNTIME.format("a 64-bit ARM Linux device"),
    "android-arm64": _NO_RUNTIME.format("Android"),
}


def readme(manifest: Manifest) -> str:
    """Markdown that says what the bundle is and how to run it; ends with a line break."""
    p, parity, binary = manifest.preprocessing, manifest.parity, manifest.binary
    signature, training = manifest.signature, manifest.training
    convolutions = f"{binary.binary_convolutions} binary and {binary.float_convolutions} float convolutions"
    colours = "grey" if p.channels == 1 else "RGB"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.created_by.items()))
    return f"""# {manifest.network.backbone} for {manifest.target}

Classifies images into {len(manifest.labels)} classes.
Trained without labels (method {training.method}, seed {training.seed}), with a linear probe on its frozen features.
The probe's top-1 accuracy on {training.data}, before conversion: {training.linear_probe_top1_percent:.1f} %.

    pip install bssl-tf
    bssl-tf run . examples/*.png
    bssl-tf bench .

{_WHERE[manifest.target]}

The examples are test images, named after their true class; any other image will do. Both commands check the files
against their hashes and the model against its golden outputs first.

- `model.tflite`:
  - {convolutions}, {binary.weight_bytes / 1024:.1f} KiB of weights
  - input `{signature.input.name}` float32 {list(signature.input.shape)}
  - output `{signature.output.name}` float32 {list(signature.output.shape)}, one logit for each label of `manifest.json`
  - LceQuantize and LceBconv2d are operators of Larq Compute Engine; a stock TFLite interpreter does not have them
- Preprocessing: {colours}, central square, {p.image_size} x {p.image_size} pixels (bilinear, antialiased), then
  (pixel / 255 - mean) / std with the constants of `manifest.json`.
- Same best class as the Keras network: {100 * parity.top1_agreement:.2f} % of {parity.images} images.
- Made with {versions}.
"""
