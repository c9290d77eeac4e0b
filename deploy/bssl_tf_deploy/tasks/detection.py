"""Detection: boxes around objects, each with a class and a score; the answer is the best of them, none drawn twice.

The network gives `scores_s` and `boxes_s` for each stride s (see `bssl_tf_deploy.boxes`). Decoding and non-maximum
suppression are computed here in numpy, and counted in every latency that this package measures. A network that was
exported with TFLite's operator for them gives final boxes instead (`FINAL_OUTPUTS`).

A detector sees the whole picture in its true shape, with grey around it: cut to its central part it would miss what
lies at the sides, and squashed it would be shown shapes that it never learnt. Training and evaluation make the same
frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from bssl_tf_deploy.boxes import Detections, candidates, on_picture, suppress
from bssl_tf_deploy.manifest import Manifest
from bssl_tf_deploy.strict import expect
from bssl_tf_deploy.tasks.task import Frame, Task, View

if TYPE_CHECKING:
    from PIL import Image

NAME = "detection"
MAX_BOXES = 1000
# Of TFLite_Detection_PostProcess, in its order: [1, M, 4] as top, left, bottom, right in shares of the input, [1, M],
# [1, M] and [1], all float32; best first, zeros from `count` on.
FINAL_OUTPUTS = ("boxes", "classes", "scores", "count")
_MAX_LABEL = 200
_LARGEST_STRIDE = 128
_LEAST_SCORE = 1e-4
_SHOWN_LABELS = 12


@dataclass(frozen=True)
class Precision:
    """COCO's average precision on test images, percent.

    Attributes:
        images: how many.
        ap_percent: of the model in the bundle, the mean over overlaps (IoU) of 0.5, 0.55, ..., 0.95.
        ap50_percent: at an overlap of 0.5.
        keras_ap_percent: of the Keras network before conversion, in float32.
        keras_ap50_percent: likewise.
    """

    images: int
    ap_percent: float
    ap50_percent: float
    keras_ap_percent: float
    keras_ap50_percent: float


@dataclass(frozen=True)
class Table:
    """The task's own part of the manifest.

    Attributes:
        labels: K names, in the order of the scores.
        strides: in pixels of the input, rising; there are two outputs for each, unless outputs are final.
        frame: how a picture of another shape becomes input: `letterbox`, whole, in the middle, grey (114) around it.
        min_score: boxes with a lower score are not given, above 0, below 1.
        max_overlap: of two boxes of one class that overlap by a larger share of their union, the better one is given.
        max_boxes: at most this many are given for one picture.
        accuracy: None where there were no test images with boxes of these classes.
    """

    labels: tuple[str, ...]
    strides: tuple[int, ...]
    frame: Literal["letterbox"]
    min_score: float
    max_overlap: float
    max_boxes: int
    accuracy: Precision | None


class Box(NamedTuple):
    """One object that was found.

    Attributes:
        label: its class.
        score: 0 to 1.
        left, top, right, bottom: in pixels of the picture that was given, held upright as its Exif states.
    """

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


class Detection(Task):
    """See the top of this file. An answer is a list of `Box`, best first; it may be empty."""

    table = Table
    agreement = "agreement of boxes"
    figures = MappingProxyType({"ap50_percent": "AP50", "ap_percent": "AP"})
    usual_limit = 100
    decoding_counts = True
    draws = True

    def frame(self, manifest: Manifest) -> Frame:
        """As the table has it."""
        table: Table = manifest.table
        return table.frame

    def check(self, manifest: Manifest) -> None:
        """Names, strides, thresholds and the shapes of all outputs; precision in percent."""
        table: Table = manifest.table
        expect(len(table.labels) > 0, "table.labels", "a list of at least one")
        for number, label in enumerate(table.labels):
            expect(
                len(label.strip()) > 0 and len(label) <= _MAX_LABEL, f"table.labels[{number}]", "1 to 200 characters"
            )
        p, strides = manifest.preprocessing, table.strides
        expect(len(strides) > 0, "table.strides", "a list of at least one")
        expect(list(strides) == sorted(set(strides)), "table.strides", "in rising order")
        for stride in strides:
            expect(1 <= stride <= _LARGEST_STRIDE, "table.strides", f"in 1 to {_LARGEST_STRIDE}")
            expect(p.height % stride == p.width % stride == 0, "table.strides", "a divisor of both sides of the input")
        wanted: dict[str, tuple[int, ...]] = {
            name: (1, p.height // stride, p.width // stride, size)
            for stride in strides
            for name, size in zip(output_names([stride]), (len(table.labels), 4), strict=True)
        }
        shapes = {one.name: one.shape for one in manifest.outputs}
        if gives_final_boxes(manifest):
            most = table.max_boxes
            wanted = dict(zip(FINAL_OUTPUTS, ((1, most, 4), (1, most), (1, most), (1,)), strict=True))
        expect(set(shapes) == set(wanted), "outputs", f"the list of {', '.join(wanted)}")
        for number, one in enumerate(manifest.outputs):
            expect(one.shape == wanted[one.name], f"outputs[{number}].shape", str(list(wanted[one.name])))
        expect(_LEAST_SCORE <= table.min_score < 1, "table.min_score", f"from {_LEAST_SCORE} to below 1")
        expect(0 <= table.max_overlap <= 1, "table.max_overlap", "from 0 to 1")
        expect(1 <= table.max_boxes <= MAX_BOXES, "table.max_boxes", f"from 1 to {MAX_BOXES}")
        if (found := table.accuracy) is not None:
            shares = (found.ap_percent, found.ap50_percent, found.keras_ap_percent, found.keras_ap50_percent)
            expect(all(0 <= share <= 100 for share in shares), "table.accuracy", "in percent")

    def decode(self, outputs: Mapping[str, np.ndarray], manifest: Manifest, view: View, limit: int) -> list[Box]:
        """Boxes with at least the score of the table, after non-maximum suppression, cut at the picture's border."""
        table: Table = manifest.table
        p = manifest.preprocessing
        if gives_final_boxes(manifest):
            found = on_picture(_of_final(outputs, len(table.labels)), view, 1, 1)
        else:
            found = detections(
                outputs,
                table.strides,
                view,
                (p.width, p.height),
                min_score=table.min_score,
                max_overlap=table.max_overlap,
                limit=table.max_boxes,
            )
        boxes = found.boxes.astype(np.float64) * np.array([view.width, view.height] * 2)
        return [
            Box(table.labels[kind], score, *sides)
            for kind, score, sides in zip(
                found.classes.tolist(), found.scores.astype(float).tolist(), boxes.tolist(), strict=True
            )
        ][:limit]

    def arranged(
        self, found: Sequence[np.ndarray], expected: Sequence[np.ndarray], manifest: Manifest
    ) -> Sequence[np.ndarray]:
        """Final boxes that are as many: to each that is expected the nearest of its class, in box and score."""
        if not gives_final_boxes(manifest):
            return found
        arranged = [array.copy() for array in found]
        for row, (count, wanted) in enumerate(zip(found[3], expected[3], strict=True)):
            if count == wanted:
                order = _nearest_first([one[row] for one in found], [one[row] for one in expected], int(wanted))
                for array, one in zip(arranged[:3], found, strict=False):
                    array[row, : len(order)] = one[row, order]
        return arranged

    def record(self, answer: list[Box]) -> dict[str, Any]:
        """`boxes`, a list of `label`, `score` and `box`: left, top, right, bottom."""
        return {"boxes": [{"label": one.label, "score": one.score, "box": list(one[2:])} for one in answer]}

    def lines(self, answer: list[Box]) -> Sequence[str]:
        """Label, score, and the four sides; a line of its own where nothing was found."""
        return [f"{one.label}  {one.score:.4f}  {' '.join(f'{side:.1f}' for side in one[2:])}" for one in answer] or [
            "no box"
        ]

    def columns(self, manifest: Manifest, limit: int) -> Sequence[str]:
        """Label, score and sides of each."""
        shown = min(limit, manifest.table.max_boxes)
        return [f"{name}_{place}" for place in range(1, shown + 1) for name in Box._fields]

    def cells(self, answer: list[Box]) -> Sequence[str | float]:
        """Label, score and sides of each, best first."""
        return [cell for one in answer for cell in one]

    def draw(self, picture: Image.Image, answer: list[Box]) -> None:
        """A frame around each object, with class and score above it."""
        from bssl_tf_deploy.drawing import draw_boxes

        draw_boxes(picture, [(one[2:], f"{one.label} {one.score:.2f}", one.label) for one in answer])

    def purpose(self, manifest: Manifest) -> str:
        """Finds objects, and of how many classes."""
        count = len(manifest.table.labels)
        return f"Finds objects of {count} class{'es' * (count > 1)} and draws a box around each."

    def output_meanings(self, manifest: Manifest) -> Mapping[str, str]:
        """A map of logits and a map of boxes for each stride, or final boxes."""
        if gives_final_boxes(manifest):
            return {
                "boxes": "top, left, bottom and right of each box, as shares of the input; best first",
                "classes": "the place of each box's label in `manifest.json`, from 0",
                "scores": "of each box, 0 to 1",
                "count": "how many boxes there are; what follows is 0",
            }
        meanings = {}
        for stride in manifest.table.strides:
            scores, boxes = output_names([stride])
            meanings[scores] = (
                f"for each cell of {stride} x {stride} pixels one logit per label; its sigmoid is the score"
            )
            meanings[boxes] = (
                f"for each of these cells the logarithms of the distances, in units of {stride} pixels, from its "
                "middle to the left, top, right and bottom of its box"
            )
        return meanings

    def claims(self, manifest: Manifest) -> Sequence[str]:
        """Precision where it is known, agreement with Keras, and which boxes are given."""
        table: Table = manifest.table
        parity = manifest.parity
        measured = "Precision of this model: not measured, as there were no test images with boxes of these labels."
        if (found := table.accuracy) is not None:
            measured = (
                f"Average precision of this model on {found.images} test images: AP50 {found.ap50_percent:.1f} %, AP "
                f"{found.ap_percent:.1f} % (in Keras, float32: {found.keras_ap50_percent:.1f} % and "
                f"{found.keras_ap_percent:.1f} %)."
            )
        final = (
            "Outputs are those of TFLite_Detection_PostProcess, as apps for such models read them. The input is the "
            "whole photo in its true shape, with grey (114) around it, and boxes are shares of that input."
        )
        return [
            measured,
            *([final] if gives_final_boxes(manifest) else []),
            f"The same boxes as by the Keras network: {100 * parity.agreement:.2f} %, on {parity.images} images.",
            f"Boxes are given from a score of {table.min_score:g} on, at most {table.max_boxes}; of boxes of one class "
            f"that overlap by more than {table.max_overlap:g} of their union, the best. Scores are not calibrated.",
        ]

    def report_cell(self, manifest: Manifest) -> str:
        """The first labels."""
        labels = manifest.table.labels
        return ", ".join(labels[:_SHOWN_LABELS]) + (" and more" if len(labels) > _SHOWN_LABELS else "")


def output_names(strides: Sequence[int]) -> tuple[str, ...]:
    """Of the outputs of a detector with maps of these strides."""
    return tuple(f"{part}_{stride}" for stride in strides for part in ("scores", "boxes"))


def detections(
    outputs: Mapping[str, np.ndarray],
    strides: Sequence[int],
    view: View,
    size: tuple[int, int],
    *,
    min_score: float,
    max_overlap: float,
    limit: int,
) -> Detections:
    """Boxes of one image as shares of the picture, best first.

    Args:
        outputs: by name, float32 [H / s, W / s, ...].
        strides: s of each pair of outputs.
        view: where the input lay on the picture.
        size: W and H of the input, pixels.
        min_score: above 0, below 1.
        max_overlap: see `boxes.suppress`.
        limit: at most this many.
    """
    pairs = {}
    for stride in strides:
        scores, boxes = output_names([stride])
        pairs[stride] = (outputs[scores], outputs[boxes])
    return on_picture(suppress(candidates(pairs, min_score), max_overlap, limit), view, *size)


def gives_final_boxes(manifest: Manifest) -> bool:
    """Whether the network ends in TFLite's operator, and not in maps."""
    return tuple(one.name for one in manifest.outputs) == FINAL_OUTPUTS


def _nearest_first(found: Sequence[np.ndarray], expected: Sequence[np.ndarray], count: int) -> list[int]:
    """The places in `found`, final outputs of one image, of the boxes that come nearest to those expected, in order."""
    boxes, classes, scores, _ = found
    free = np.arange(len(scores)) < count
    order: list[int] = []
    for box, kind, score in zip(*(one[:count] for one in expected[:3]), strict=True):
        away = np.maximum(np.abs(boxes - box).max(axis=1), np.abs(scores - score)) + (classes != kind)
        order.append(int(np.where(free, away, np.inf).argmin()))
        free[order[-1]] = False
    return order


def final_outputs(outputs: Mapping[str, np.ndarray], table: Table, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """What TFLite's operator makes of a batch of maps, by numpy.

    Args:
        outputs: by name, float32 [B, H / s, W / s, ...].
        table: how they become boxes.
        size: W and H of the input, pixels.

    Returns:
        `FINAL_OUTPUTS`, with B in place of 1.
    """
    count, most = len(next(iter(outputs.values()))), table.max_boxes
    shapes = ((count, most, 4), (count, most), (count, most), (count,))
    final = {name: np.zeros(shape, np.float32) for name, shape in zip(FINAL_OUTPUTS, shapes, strict=True)}
    for row in range(count):
        pairs = {
            stride: (outputs[scores][row], outputs[boxes][row])
            for stride in table.strides
            for scores, boxes in (output_names([stride]),)
        }
        found = suppress(candidates(pairs, table.min_score), table.max_overlap, most)
        final["boxes"][row, : len(found)] = (found.boxes / np.array(size * 2, np.float32))[:, [1, 0, 3, 2]]
        final["classes"][row, : len(found)] = found.classes
        final["scores"][row, : len(found)] = found.scores
        final["count"][row] = len(found)
    return final


def _of_final(outputs: Mapping[str, np.ndarray], classes: int) -> Detections:
    """Boxes of one image as shares of the input; what makes no sense is dropped."""
    boxes, kinds, scores, count = (outputs[name] for name in FINAL_OUTPUTS)
    places = np.arange(len(scores))
    sound = np.isfinite(boxes).all(axis=1) & np.isfinite(scores) & (kinds >= 0) & (kinds < classes)
    kept = np.flatnonzero(sound & (places < count))
    return Detections(boxes[kept][:, [1, 0, 3, 2]], scores[kept], kinds[kept].astype(np.int64))
