"""What `manifest.json` of a bundle holds, read strictly: no key too few, none too many, every type as written here."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.library import TARGETS
from bssl_tf_deploy.strict import StrictError, expect, parse
from bssl_tf_deploy.tasks import find_task

FORMAT = 4
MAX_FILE_BYTES = 2**30
EXAMPLES = "examples"
_FILE_NAME = re.compile(rf"(?:{EXAMPLES}/|lib/(?:{'|'.join(TARGETS)})/)?[A-Za-z0-9_-][A-Za-z0-9._-]{{0,99}}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


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
class Preprocessing:
    """How pixels become input: (pixel / 255 - mean) / std, rounded for int8. A network that takes uint8 does it itself.

    Attributes:
        height: of the network's input, pixels.
        width: of the network's input, pixels. Of a picture of another shape, the largest central part of this shape,
            or what the task's table states (`frame`).
        channels: 1 (grey) or 3 (RGB).
        mean: one for each channel.
        std: one for each channel, above zero.
    """

    height: int
    width: int
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
class OutputParity:
    """How one output differs from that of the Keras network, in the output's own units.

    Attributes:
        max_abs_difference: over all images.
        median_abs_difference: over all images.
        tolerance: what rounding explains.
    """

    max_abs_difference: float
    median_abs_difference: float
    tolerance: float


@dataclass(frozen=True)
class ParityFigures:
    """Agreement with the Keras network at export; with int8, agreement with that network rounded in the same way.

    Attributes:
        images: how many were compared.
        agreement: share (0 to 1) of images with the same answer, as the task counts it: top-1 for classification.
        share_within_tolerance: share of images (0 to 1) all of whose outputs differ by no more than their tolerance.
        outputs: by name.
    """

    images: int
    agreement: float
    share_within_tolerance: float
    outputs: dict[str, OutputParity]


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
        data: the data set that the backbone learned from.
        labels_used: whose labels the backbone learned from, itself or through its teacher, as a clause for "trained
            with ..."; None for none.
        seed: of the run.
    """

    method: str
    data: str
    labels_used: str | None
    seed: int


@dataclass(frozen=True)
class _Common:
    """What a manifest holds for any task."""

    format: int
    task: str
    target: str
    commit: str | None
    created_by: dict[str, str]
    files: dict[str, FileEntry]
    inputs: tuple[TensorSignature, ...]
    outputs: tuple[TensorSignature, ...]
    preprocessing: Preprocessing
    operators: dict[str, int]
    binary: Binary
    parity: ParityFigures
    network: NetworkDescription
    training: Training | None


@dataclass(frozen=True)
class Manifest(_Common):
    """The description of a bundle.

    Attributes:
        format: of the bundle; this code writes `FORMAT`.
        task: a name that `bssl_tf_deploy.tasks` knows.
        target: what it was exported for: arm64, x86_64 or android-arm64.
        commit: of the bssl-tf that exported it, with `+` where its files had changed; None where that is not known.
        created_by: version of each package, and of what compiled the runtime library; only what is known.
        files: every file but the manifest.
        inputs: of the model, in its order; the first is the image. Others are fed as tensors only.
        outputs: of the model, in its order.
        preprocessing: of an image.
        operators: how many of each name.
        binary: how much of it is 1-bit.
        parity: with the Keras network.
        network: its shape.
        training: its origin; None where it was not trained with bssl-tf.
        table: the task's own; see the task.
    """

    table: Any

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: object) -> Manifest:
        """The reverse of `to_dict`.

        Raises:
            BundleError: another format, an unknown task, a missing or unknown key, a wrong type, or values that
                contradict each other; the message names the first.
        """
        version = content.get("format") if isinstance(content, dict) else None
        if type(version) is not int or version != FORMAT:
            raise BundleError(
                f"the bundle has format {version!r:.40}, and this version of bssl-tf reads format {FORMAT}",
                "Export it again with this version, or install the version that wrote it",
            )
        assert isinstance(content, dict)
        try:
            expect("table" in content, "manifest", "complete: it has the missing key 'table'")
            common = parse(_Common, {key: value for key, value in content.items() if key != "table"}, "manifest")
            task = find_task(common.task)
            table: Any = parse(task.table, content["table"], "manifest.table")
            manifest = cls(**vars(common), table=table)
            _check(manifest)
            task.check(manifest)
        except StrictError as error:
            raise BundleError(
                f"the bundle's manifest.json is damaged: {error}", "Export it again or copy it again"
            ) from error
        return manifest


def _check(manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        # Nothing outside the bundle is ever opened.
        expect(_FILE_NAME.fullmatch(name) is not None, f"files.{name!r:.60}", "the name of a file in a bundle")
        expect(_SHA256.fullmatch(entry.sha256) is not None, f"files.{name}.sha256", "64 hexadecimal digits")
        expect(0 <= entry.bytes <= MAX_FILE_BYTES, f"files.{name}.bytes", "a size from 0 to 1 GiB")
    p = manifest.preprocessing
    expect(8 <= p.height <= 1024, "preprocessing.height", "in 8 to 1024")
    expect(8 <= p.width <= 1024, "preprocessing.width", "in 8 to 1024")
    expect(p.channels in (1, 3), "preprocessing.channels", "1 or 3")
    expect(len(p.mean) == len(p.std) == p.channels, "preprocessing.mean or .std", "one number for each channel")
    expect(all(std > 0 and math.isfinite(1 / std) for std in p.std), "preprocessing.std", "above zero")
    for ends, tensors, dtypes in (
        ("inputs", manifest.inputs, ("float32", "uint8", "int8")),
        ("outputs", manifest.outputs, ("float32", "int8")),
    ):
        expect(len(tensors) > 0, ends, "a list of at least one")
        expect(len({tensor.name for tensor in tensors}) == len(tensors), ends, "a list of different names")
        for number, tensor in enumerate(tensors):
            _check_tensor(tensor, f"{ends}[{number}]", dtypes)
    shape = (1, p.height, p.width, p.channels)
    expect(manifest.inputs[0].shape == shape, "inputs[0].shape", f"{list(shape)}, as in preprocessing")
    names = [tensor.name for tensor in manifest.outputs]
    expect(set(manifest.parity.outputs) == set(names), "parity.outputs", f"one for each output: {', '.join(names)}")


def _check_tensor(tensor: TensorSignature, where: str, dtypes: tuple[str, ...]) -> None:
    expect(_TENSOR_NAME.fullmatch(tensor.name) is not None, f"{where}.name", "a name: letters, digits and _ . -")
    expect(tensor.dtype in dtypes, f"{where}.dtype", " or ".join(dtypes))
    expect(
        len(tensor.shape) > 0 and tensor.shape[0] == 1 and all(side > 0 for side in tensor.shape),
        f"{where}.shape",
        "that of a batch of one",
    )
    quantization = tensor.quantization
    expect((quantization is not None) == (tensor.dtype == "int8"), f"{where}.quantization", "that of int8")
    if quantization is not None:
        # In float32, as it is used.
        with np.errstate(over="ignore", under="ignore"):
            scale = np.float32(quantization.scale)
        expect(bool(0 < scale < np.inf), f"{where}.quantization.scale", "above zero and within float32")
        expect(-128 <= quantization.zero_point <= 127, f"{where}.quantization.zero_point", "in -128 to 127")
