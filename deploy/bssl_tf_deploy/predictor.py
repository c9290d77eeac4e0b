"""Runs images through a bundle's network with any interpreter that can run its model, and decodes the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.errors import BundleError, ImageError
from bssl_tf_deploy.golden import typical_magnitude
from bssl_tf_deploy.inputs import check_tensors
from bssl_tf_deploy.preprocess import load_view, normalise
from bssl_tf_deploy.tasks import find_task
from bssl_tf_deploy.tasks.task import View

# Over the median magnitude of the golden outputs. Rounding stays below 3e-5 of it, a flipped sign mostly moves them by
# more than 0.01 (measured: bssl_tf_converters.lce.parity).
GOLDEN_TOLERANCE = 1e-3
# Another machine rounds in another way, and a value within rounding of zero may change its sign there. That hits
# single images; a wrong kernel hits all.
_ONE_MAY_DIFFER_IN = 4
Image = Path | str | np.ndarray


class Interpreter(Protocol):
    """What runs a model."""

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The model's outputs in its order, float32 [B, ...], of inputs [B, ...] of its types, in its order."""


class Predictor:
    """A bundle and what runs it.

    Args:
        bundle: from `read_bundle`.
        interpreter: made from `bundle.model`.
    """

    def __init__(self, bundle: Bundle, interpreter: Interpreter) -> None:
        self.bundle = bundle
        self.task = find_task(bundle.manifest.task)
        self._interpreter = interpreter

    def verify_golden(self) -> None:
        """Runs the golden inputs and compares with the golden outputs.

        Raises:
            BundleError: they differ by more than rounding explains; no result of this interpreter is to be trusted.
        """
        difference = self._difference(self._interpreter.run(self.bundle.golden_inputs), self.bundle.golden_outputs)
        if difference:
            raise BundleError(
                f"the interpreter does not reproduce the golden outputs of {self.bundle.path}: {difference}",
                "Export it again; where both runtimes are installed, find the faulty one with --runtime own and lce",
            )

    def check_against(self, other: Interpreter, images: Sequence[Image]) -> float:
        """Runs images through another interpreter too.

        Args:
            other: a second opinion, made from the same model.
            images: see `outputs`; at least one.

        Returns:
            The largest difference between two numbers in the outputs.

        Raises:
            BundleError: they differ by more than rounding explains.
            ImageError: see `outputs`.
        """
        _require_some(images)
        inputs = [np.concatenate([self._input(image)[0] for image in images])]
        expected, outputs = other.run(inputs), self._interpreter.run(inputs)
        difference = self._difference(outputs, expected)
        if difference:
            raise BundleError(
                f"two interpreters of {self.bundle.path} do not agree: {difference}",
                "Rely on neither; a value within rounding of zero may flip in one image, so try more images",
            )
        return max(float(np.max(np.abs(a - b))) for a, b in zip(outputs, expected, strict=True))

    def _difference(self, outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str:
        """How two lists of outputs [B, ...] differ by more than rounding explains; empty if they do not."""
        shapes, wanted = ([list(array.shape) for array in arrays] for arrays in (outputs, expected))
        if shapes != wanted:
            return f"they have shapes {shapes}, not {wanted}"
        off, limits = np.zeros(len(expected[0]), bool), []
        for about, found, array, golden in zip(
            self.bundle.manifest.outputs, outputs, expected, self.bundle.golden_outputs, strict=True
        ):
            tolerance = GOLDEN_TOLERANCE * typical_magnitude(golden)
            limits.append(f"{tolerance:.2g} in {about.name}")
            # Not a number is not within the tolerance either.
            off |= ~(np.max(np.abs(found - array).reshape(len(array), -1), axis=1) <= tolerance)
        count = np.count_nonzero(off)
        if count <= len(off) // _ONE_MAY_DIFFER_IN:
            return ""
        return f"{count} of {len(off)} differ by more than {' or '.join(limits)}"

    def outputs(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """What the network makes of images: for each output, by name, float32 [N, ...].

        Args:
            images: at least one; files, or arrays as `run_tensor` takes them, of one image each.

        Raises:
            ImageError: a file cannot be read, an array is not one image that the network takes, or there are none.
        """
        _require_some(images)
        # One after another, so that many images need no more memory than one.
        rows = [self._run([self._input(image)[0]]) for image in images]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def run_tensor(self, tensor: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the network makes of a tensor that is ready for it: for each output, by name, float32 [N, ...].

        Args:
            tensor: [N, ...], N at least 1, of the type and shape in the manifest; for a network of several inputs, one
                by each name. A float32 image is preprocessed: (pixel / 255 - mean) / std.

        Raises:
            ImageError: type, shape or range are not those of the manifest, or a number is not finite.
        """
        about = self.bundle.manifest.inputs
        named = {about[0].name: tensor} if isinstance(tensor, np.ndarray) else dict(tensor)
        check_tensors(self.bundle.manifest, named)
        return self._run([named[one.name] for one in about])

    def _run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        names = [about.name for about in self.bundle.manifest.outputs]
        return dict(zip(names, self._interpreter.run(inputs), strict=True))

    def _input(self, image: Image) -> tuple[np.ndarray, View]:
        """One image as the network takes it, [1, H, W, C], and which part of the picture that is."""
        manifest = self.bundle.manifest
        about = manifest.inputs[0]
        if isinstance(image, np.ndarray):
            check_tensors(manifest, {about.name: image}, one=True)
            return image, View()
        if len(manifest.inputs) > 1:
            raise ImageError(
                f"{self.bundle.path} takes {', '.join(one.name for one in manifest.inputs)}, not an image alone",
                "Give all of them to run_tensor",
            )
        pixels, view = load_view(Path(image), manifest.preprocessing)
        if about.dtype == "uint8":
            return pixels, view
        normalised = normalise(pixels, manifest.preprocessing.mean, manifest.preprocessing.std)
        return normalised if about.quantization is None else about.quantization.integers(normalised), view

    def answers(self, images: Sequence[Image], limit: int = 3) -> list[Any]:
        """The task's answer for each image.

        Args:
            images: see `outputs`.
            limit: how many parts an answer may have at most, best first: classes, boxes.

        Returns:
            For each image what the bundle's task makes of the outputs (`bssl_tf_deploy.tasks`).

        Raises:
            ImageError: see `outputs`.
        """
        _require_some(images)
        return [self.answer_and_outputs(image, limit)[0] for image in images]

    def answer_and_outputs(self, image: Image, limit: int) -> tuple[Any, dict[str, np.ndarray]]:
        """The task's answer for one image, and the outputs that it was decoded from, float32 without the batch."""
        array, view = self._input(image)
        outputs = {name: rows[0] for name, rows in self._run([array]).items()}
        return self.task.decode(outputs, self.bundle.manifest, view, limit), outputs

    def classify(self, images: Sequence[Image], top: int = 3) -> list[list[tuple[str, float]]]:
        """The best classes of each image.

        Args:
            images: see `outputs`.
            top: how many classes, at least 1; all of them where there are fewer.

        Returns:
            For each image (label, score), best first; scores are softmax, 0 to 1, and sum to 1 over all classes.

        Raises:
            BundleError: the bundle's task is not classification.
            ImageError: see `outputs`.
        """
        if self.bundle.manifest.task != "classification":
            raise BundleError(
                f"{self.bundle.path} is for {self.bundle.manifest.task}, not for classification", "Use answers instead"
            )
        return self.answers(images, top)


def _require_some(images: Sequence[Image]) -> None:
    if not len(images):
        raise ImageError("there are no images to run", "Give at least one")
