"""Runs images through a bundle's network with any interpreter that can run its model, and decodes the answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from bssl_tf_deploy.agreement import Agreement
from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.errors import BundleError, ImageError
from bssl_tf_deploy.inputs import Images, OneImage, check_tensors, single_images
from bssl_tf_deploy.preprocess import load_view, normalise
from bssl_tf_deploy.tasks import find_task
from bssl_tf_deploy.tasks.task import View

if TYPE_CHECKING:
    from bssl_tf_deploy.tasks.detection import Box


class Prepared(NamedTuple):
    """An image as the network takes it.

    Attributes:
        tensor: [1, H, W, C], of the type in the manifest.
        view: which part of the picture that is.
    """

    tensor: np.ndarray
    view: View


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
        agreement = Agreement(self.bundle)
        agreement.add(self._interpreter.run(self.bundle.golden_inputs), self.bundle.golden_outputs)
        if fault := agreement.fault():
            raise BundleError(
                f"the interpreter does not reproduce the golden outputs of {self.bundle.path}: {fault}",
                "Export it again; where both runtimes are installed, find the faulty one with --runtime own and lce",
            )

    def check_against(self, other: Interpreter, images: Images, *, bgr: bool = False) -> float:
        """Runs images through another interpreter too.

        Args:
            other: a second opinion, made from the same model.
            images: see `classify`.
            bgr: see `classify`.

        Returns:
            The largest difference between two numbers in the outputs.

        Raises:
            BundleError: they differ by more than rounding explains.
            ImageError: see `classify`.
        """
        agreement = Agreement(self.bundle)
        for image in single_images(images, bgr=bgr):
            self.compare(agreement, other, self.prepare(image))
        agreement.require()
        return agreement.largest

    def compare(self, agreement: Agreement, other: Interpreter, prepared: Prepared) -> None:
        """Adds to `agreement` what this interpreter and `other` make of one image; nothing is judged yet."""
        agreement.add(self._interpreter.run([prepared.tensor]), other.run([prepared.tensor]))

    def outputs(self, images: Images, *, bgr: bool = False) -> dict[str, np.ndarray]:
        """What the network makes of images: for each output, by name, float32 [N, ...].

        Args:
            images: see `classify`.
            bgr: see `classify`.

        Raises:
            ImageError: see `classify`.
        """
        rows = [self._run([self.prepare(image).tensor]) for image in single_images(images, bgr=bgr)]
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

    def prepare(self, image: OneImage) -> Prepared:
        """One image as the network takes it. Any number of threads may call this at once.

        Args:
            image: a path, what a file holds, a Pillow image, or uint8 pixels [H, W, C].

        Raises:
            ImageError: it cannot be read, or the network takes more than an image.
            RuntimeUnavailableError: Pillow is not installed.
        """
        manifest = self.bundle.manifest
        about = manifest.inputs[0]
        if len(manifest.inputs) > 1:
            raise ImageError(
                f"{self.bundle.path} takes {', '.join(one.name for one in manifest.inputs)}, not an image alone",
                "Give all of them to run_tensor",
            )
        pixels, view = load_view(image, manifest.preprocessing, self.task.frame(manifest))
        if about.dtype == "uint8":
            return Prepared(pixels, view)
        normalised = normalise(pixels, manifest.preprocessing.mean, manifest.preprocessing.std)
        quantized = normalised if about.quantization is None else about.quantization.integers(normalised)
        return Prepared(quantized, view)

    def answers(self, images: Images, limit: int | None = None, *, bgr: bool = False) -> list[Any]:
        """The task's answer for each image.

        Args:
            images: see `classify`.
            limit: how many parts an answer may have at most, best first: 3 classes or 100 boxes unless given.
            bgr: see `classify`.

        Returns:
            For each image what the bundle's task makes of the outputs (`bssl_tf_deploy.tasks`).

        Raises:
            ImageError: see `classify`.
        """
        # One after another: a batch takes as long or longer, except where an image takes microseconds, and its memory.
        most = self.task.usual_limit if limit is None else limit
        return [self.answer(self.prepare(image), most)[0] for image in single_images(images, bgr=bgr)]

    def answer(self, prepared: Prepared, limit: int) -> tuple[Any, dict[str, np.ndarray]]:
        """The task's answer for one image, and the outputs that it was decoded from, float32 without the batch."""
        outputs = {name: rows[0] for name, rows in self._run([prepared.tensor]).items()}
        return self.task.decode(outputs, self.bundle.manifest, prepared.view, limit), outputs

    def classify(self, images: Images, top: int = 3, *, bgr: bool = False) -> list[list[tuple[str, float]]]:
        """The best classes of each image.

        Every image is prepared as in training: turned upright, its central part taken, resized, normalised. The same
        pixels give the same bits, wherever they come from; a JPEG file much larger than needed is decoded smaller.

        Args:
            images: a path, a Pillow image, or an array uint8 [H, W, 3] (RGB), [H, W, 1] (grey) or [N, H, W, 3 or 1],
                which is N images; or any number of these, each of any size. Tensors that are ready for the network go
                to `run_tensor`.
            top: how many classes, at least 1; all of them where there are fewer.
            bgr: arrays have blue first, as OpenCV gives them.

        Returns:
            For each image (label, score), best first; scores are softmax, 0 to 1, and sum to 1 over all classes.

        Raises:
            BundleError: the bundle's task is not classification.
            ImageError: an image cannot be read, something is not an image, or there are none.
        """
        self._require("classification")
        return self.answers(images, top, bgr=bgr)

    def detect(self, images: Images, limit: int | None = None, *, bgr: bool = False) -> list[list[Box]]:
        """The objects on each image.

        Every image is prepared as in training: turned upright, put whole into the network's input, grey around it.

        Args:
            images: see `classify`.
            limit: how many boxes at most, at least 1; 100 unless given. The manifest has another limit, and the score
                from which on boxes are given.
            bgr: arrays have blue first, as OpenCV gives them.

        Returns:
            For each image its boxes, best first, in pixels of that image; a box is (label, score, left, top, right,
            bottom). A photo that its Exif turns is held upright.

        Raises:
            BundleError: the bundle's task is not detection.
            ImageError: see `classify`.
        """
        self._require("detection")
        return self.answers(images, limit, bgr=bgr)

    def _require(self, task: str) -> None:
        if self.bundle.manifest.task != task:
            raise BundleError(
                f"{self.bundle.path} is for {self.bundle.manifest.task}, not for {task}", "Use answers instead"
            )


def timed_call(bundle: Bundle, interpreter: Interpreter) -> tuple[Callable[[], object], str]:
    """What is timed as one image: the first golden one, as the network takes it, to its outputs.

    With decoding where that counts (`Task.decoding_counts`), and then words that say so, for what computed.
    """
    predictor = Predictor(bundle, interpreter)
    if not predictor.task.decoding_counts:
        return functools.partial(interpreter.run, bundle.first_inputs), ""
    prepared = Prepared(bundle.first_inputs[0], View())
    return functools.partial(predictor.answer, prepared, predictor.task.usual_limit), ", with decoding"
