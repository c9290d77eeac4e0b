"""What a task is on the device."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from bssl_tf_deploy.manifest import Manifest

# What of a picture of another shape becomes input: its largest central part, or all of it with grey around.
Frame = Literal["crop", "letterbox"]


@dataclass(frozen=True)
class View:
    """The part of a picture that the network saw, as shares of the picture held upright: (0, 0, 1, 1) is all of it.

    It may reach past the picture's border, where the input was padded. Tasks whose answers have places (boxes, points)
    bring them back to the picture by it.

    Attributes:
        left, top, right, bottom: shares of the picture.
        width, height: of the picture held upright, pixels, as it was given, though it may have been decoded smaller;
            1 where places are to be shares.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    width: float = 1.0
    height: float = 1.0


class Task(ABC):
    """One task; a single object of it serves all bundles.

    Attributes:
        table: the frozen dataclass that `Manifest.table` is read as, strictly (see `bssl_tf_deploy.strict`).
        usual_limit: how many parts an answer may have where the user names no number.
        decoding_counts: whether `decode` takes time worth counting: latencies have it in them then.
        draws: whether `draw` is there.
        agreement: what `parity.agreement` counts, in a word or two.
        figures: of the numbers in percent of `table.accuracy`, the name and what people call it; one with `keras_`
            before its name is that of the Keras network.
    """

    table: ClassVar[type]
    usual_limit: ClassVar[int] = 3
    decoding_counts: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    agreement: ClassVar[str] = "agreement"
    figures: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def frame(self, manifest: Manifest) -> Frame:
        """What of a picture the network is to see."""
        return "crop"

    @abstractmethod
    def check(self, manifest: Manifest) -> None:
        """Compares the table with outputs and all else in the manifest.

        Raises:
            StrictError: they contradict each other (`bssl_tf_deploy.strict.expect`).
        """

    @abstractmethod
    def decode(self, outputs: Mapping[str, np.ndarray], manifest: Manifest, view: View, limit: int) -> Any:
        """The answer for one image.

        Args:
            outputs: by name, float32, each of the shape in the manifest without the batch.
            manifest: of the bundle.
            view: where the network's input lay in the picture; for a tensor, the input itself.
            limit: how many parts the answer may have at most (classes, boxes), at least 1, best first.
        """

    def arranged(
        self, found: Sequence[np.ndarray], expected: Sequence[np.ndarray], manifest: Manifest
    ) -> Sequence[np.ndarray]:
        """`found` with its parts in the order of those of `expected`, where rounding may decide about their order.

        Args:
            found, expected: the outputs of two interpreters for the same images, in the manifest's order, [B, ...].
            manifest: of the bundle.
        """
        return found

    def state(self) -> Mapping[str, Any]:
        """What answers depend on that the manifest does not list, as JSON values; the same continues a file of them."""
        return {}

    @abstractmethod
    def record(self, answer: Any) -> dict[str, Any]:
        """An answer as values for JSON."""

    @abstractmethod
    def lines(self, answer: Any) -> Sequence[str]:
        """An answer as text, a line for each part."""

    def columns(self, manifest: Manifest, limit: int) -> Sequence[str]:
        """Names of the columns that `cells` fills for answers of at most `limit` parts."""
        return ("answer",)

    def cells(self, answer: Any) -> Sequence[str | float]:
        """An answer as one row of a table; may be shorter than `columns`."""
        return (json.dumps(self.record(answer)),)

    def draw(self, picture: Image.Image, answer: Any) -> None:
        """Draws an answer into the picture that it is about, upright, mode RGB. Called only where `draws` is true."""
        raise NotImplementedError

    @abstractmethod
    def purpose(self, manifest: Manifest) -> str:
        """One sentence for the bundle's README that states what the network does."""

    @abstractmethod
    def output_meanings(self, manifest: Manifest) -> Mapping[str, str]:
        """What each output holds, by its name; for the bundle's README."""

    @abstractmethod
    def claims(self, manifest: Manifest) -> Sequence[str]:
        """Sentences for the bundle's README: what was measured, and what the network cannot do."""

    @abstractmethod
    def report_cell(self, manifest: Manifest) -> str:
        """What the answers are made of, for one cell of a report: names of classes, say."""
