"""What `manifest.json` of a bundle says, read strictly: no key too few, none too many, every type as written here."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.library import TARGETS
from bssl_tf_deploy.strict import StrictError, expect, parse

# 2: the network may come from elsewhere (no `training`), take pixels (uint8), take and give int8, and tell its
# accuracy; all of 1 is as it was.
FORMAT = 2
_READABLE = (1, FORMAT)
MAX_FILE_BYTES = 2**30
EXAMPLES = "examples"
_FILE_NAME = re.compile(rf"(?:{EXAMPLES}/|lib/(?:{'|'.join(TARGETS)})/)?[A-Za-z0-9_-][A-Za-z0-9._-]{{0,99}}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """A file's SHA-256 in lower-case hexadecimal, and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Quantization:
    """How int8 stands for real numbers: (number - zero_point) * scale.

    Attributes:
        scale: above zero.
        zero_point: -128 to 127.
    """

    scale: float
    zero_point: int

    def integers(self, values: np.ndarray) -> np.ndarray:
        """The nearest int8 of float `values`, of the same shape."""
        scaled = np.rint(np.asarray(values, np.float32) / np.float32(self.scale)) + self.zero_point
        return np.clip(scaled, -128, 127).astype(np.int8)

    def floats(self, numbers: np.ndarray) -> np.ndarray:
        """float32 of int8 `numbers`, of the same shape."""
        values: np.ndarray = (numbers.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return values


@dataclass(frozen=True)
class TensorSignature:
    """A tensor's name in the signature, its shape (batch size 1) and type: `float32`, `uint8` for pixels, or `int8`.

    Attributes:
        quantization: of int8.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Signature:
    """What goes in and what comes out."""

    input: TensorSignature
    output: TensorSignature


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become input: (pixel / 255 - mean) / std, rounded for int8. A network that takes uint8 does it itself.

    Attributes:
        image_size: pixels a side.
        channels: 1 (grey) or 3 (RGB).
        mean: one for each channel.
        std: one for each channel, above zero.
    """

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Binary:
    """What the model is made of.

    Attributes:
        binary_convolutions: LceBconv2d operators.
        float_convolutions: those in float.
        fully_connected: dense operators in float.
        weight_bytes: size of all constants.
        int8_operators: convolutions and dense operators in int8.
    """

    binary_convolutions: int
    float_convolutions: int
    fully_connected: int
    weight_bytes: int
    int8_operators: int = 0


@dataclass(frozen=True)
class ParityFigures:
    """Agreement with the Keras network at export; with int8, agreement with that network rounded in the same way.

    Attributes:
        images: how many were compared.
        top1_agreement: share (0 to 1) with the same best class.
        max_abs_difference: between logits.
        median_abs_difference: between logits.
        share_within_tolerance: share of images (0 to 1) all of whose logits differ by no more than `tolerance`.
        tolerance: in units of logits.
    """

    images: int
    top1_agreement: float
    max_abs_difference: float
    median_abs_difference: float
    share_within_tolerance: float
    tolerance: float


@dataclass(frozen=True)
class Accuracy:
    """Top-1 on the images that parity was measured on, percent.

    Attributes:
        images: how many.
        top1_percent: of the model in the bundle.
        keras_top1_percent: of the Keras network before conversion, in float32.
    """

    images: int
    top1_percent: float
    keras_top1_percent: float


@dataclass(frozen=True)
class NetworkDescription:
    """How to build the backbone again: its name, and what its builder takes beside image size and channels.

    Of a network that was not trained with bssl-tf, only the name, and nothing here builds it.
    """

    backbone: str
    arguments: dict[str, int]


@dataclass(frozen=True)
class Training:
    """Where the weights come from.

    Attributes:
        method: of `bssl-tf pretrain`.
        data: the data set that the probe was fitted on.
        linear_probe_top1_percent: its accuracy there, on test images, before conversion.
        seed: of the run.
    """

    method: str
    data: str
    linear_probe_top1_percent: float
    seed: int


@dataclass(frozen=True)
class Manifest:
    """All that a bundle says about itself.

    Attributes:
        format: of the bundle; this code writes `FORMAT`.
        target: what it was exported for: arm64, x86_64 or android-arm64.
        created_by: version of each package.
        files: every file but the manifest.
        signature: of the model.
        preprocessing: of an image.
        labels: K names, in the order of the logits.
        operators: how many of each name.
        binary: how much of it is 1-bit.
        parity: with the Keras network.
        network: its shape.
        training: its origin; None where it was not trained with bssl-tf.
        accuracy: None where the images had no labels.
    """

    format: int
    target: str
    created_by: dict[str, str]
    files: dict[str, FileEntry]
    signature: Signature
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    operators: dict[str, int]
    binary: Binary
    parity: ParityFigures
    network: NetworkDescription
    training: Training | None
    accuracy: Accuracy | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: object) -> Manifest:
        """The reverse of `to_dict`.

        Raises:
            BundleError: an unknown format, a missing or unknown key, a wrong type, or values that contradict each
                other; the message names the first.
        """
        version = content.get("format") if isinstance(content, dict) else None
        if isinstance(version, bool) or version not in _READABLE:
            raise BundleError(
                f"the bundle says format {version!r:.40}, and this version of bssl-tf knows "
                f"{' and '.join(map(str, _READABLE))}",
                "Export it again with this version, or install the version that wrote it",
            )
        try:
            manifest = parse(cls, _with_later_keys(content) if version == 1 else content, "manifest")
            _check(manifest)
        except StrictError as error:
            raise BundleError(
                f"the bundle's manifest.json is damaged: {error}", "Export it again or copy it again"
            ) from error
        return manifest


def _with_later_keys(content: Any) -> Any:
    """A manifest of format 1 with what format 2 says beside."""
    content = copy.deepcopy(content)
    later: tuple[tuple[tuple[str, ...], str, Any], ...] = (
        ((), "accuracy", None),
        (("binary",), "int8_operators", 0),
        (("signature", "input"), "quantization", None),
        (("signature", "output"), "quantization", None),
    )
    for way, key, value in later:
        part = content
        for name in way:
            part = part.get(name) if isinstance(part, dict) else None
        if isinstance(part, dict):
            part.setdefault(key, value)
    return content


def _check(manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        # Nothing outside the bundle is ever opened.
        expect(_FILE_NAME.fullmatch(name) is not None, f"files.{name!r:.60}", "the name of a file in a bundle")
        expect(_SHA256.fullmatch(entry.sha256) is not None, f"files.{name}.sha256", "64 hexadecimal digits")
        expect(0 <= entry.bytes <= MAX_FILE_BYTES, f"files.{name}.bytes", "a size from 0 to 1 GiB")
    p = manifest.preprocessing
    expect(8 <= p.image_size <= 1024, "preprocessing.image_size", "in 8 to 1024")
    expect(p.channels in (1, 3), "preprocessing.channels", "1 or 3")
    expect(len(p.mean) == len(p.std) == p.channels, "preprocessing.mean or .std", "one number for each channel")
    expect(all(std > 0 and math.isfinite(1 / std) for std in p.std), "preprocessing.std", "above zero")
    first = manifest.format == 1
    inputs = ("float32",) if first else ("float32", "uint8", "int8")
    outputs = ("float32",) if first else ("float32", "int8")
    for name, tensor, shape, dtypes in (
        ("input", manifest.signature.input, (1, p.image_size, p.image_size, p.channels), inputs),
        ("output", manifest.signature.output, (1, len(manifest.labels)), outputs),
    ):
        expect(tensor.dtype in dtypes, f"signature.{name}.dtype", " or ".join(dtypes))
        quantization = tensor.quantization
        expect((quantization is not None) == (tensor.dtype == "int8"), f"signature.{name}.quantization", "that of int8")
        if quantization is not None:
            expect(quantization.scale > 0, f"signature.{name}.quantization.scale", "above zero")
            expect(
                -128 <= quantization.zero_point <= 127, f"signature.{name}.quantization.zero_point", "in -128 to 127"
            )
        expect(tensor.shape == shape, f"signature.{name}.shape", f"{list(shape)}, as the rest of it says")
    expect(len(manifest.labels) > 0, "labels", "a list of at least one")
    expect(manifest.training is not None or manifest.format > 1, "training", "an object")
    if manifest.accuracy is not None:
        shares = (manifest.accuracy.top1_percent, manifest.accuracy.keras_top1_percent)
        expect(all(0 <= share <= 100 for share in shares), "accuracy", "in percent")
