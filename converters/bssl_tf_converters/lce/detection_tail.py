"""Puts decoding and non-maximum suppression of a detector into its model, by TFLite's own operator for it.

`TFLite_Detection_PostProcess` is what models of TensorFlow's Object Detection API end in, and what TFLite apps for them
read: boxes, classes, scores, count. It was made for heads with anchors: a box is an encoding relative to its anchor,

    middle = encoding.yx * anchor.hw + anchor.yx,    size = exp(encoding.hw) * anchor.hw.

With encodings of 0 a box is its anchor, and the operator takes whatever tensor it is given as anchors. So the boxes,
decoded by builtin operators, go in there, and nothing is lost to a logarithm that the operator would undo.

No converter writes this operator for a network of ours, so that it is appended to the flatbuffer that LCE made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from flatbuffers import flexbuffers

from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce.appending import Appender
from bssl_tf_converters.lce.converter import LceInterpreter, output_names
from bssl_tf_converters.lce.export import GOLDEN_IMAGES, Converted
from bssl_tf_converters.tflite.model import operator_histogram
from bssl_tf_deploy.boxes import MAX_LOG_DISTANCE
from bssl_tf_deploy.library import own_library
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.manifest import OutputParity, ParityFigures, TensorSignature
from bssl_tf_deploy.quiet import captured_output
from bssl_tf_deploy.tasks.detection import FINAL_OUTPUTS, Table, final_outputs

OPERATOR = "TFLite_Detection_PostProcess"
# Of shares of the input, and of scores, between the operator and numpy: float32 in another order.
TOLERANCE = 1e-5
# Of the same, between networks: what rounding makes of outputs (see `parity`).
_OF_NETWORKS = 1e-3
# Scores and overlaps this near to a limit, or to each other, may fall on its other side on another machine.
_NEAR = 1e-4


def with_detection_tail(converted: Converted, inputs: np.ndarray, table: Table) -> Converted:
    """The same network, with final boxes as its outputs.

    Args:
        converted: a detector with the outputs `scores_s` and `boxes_s`.
        inputs: [N, H, W, C], the images of `converted.found` as the network takes them (before int8).
        table: of the task; how outputs become boxes.

    Returns:
        Outputs are `boxes`, float32 [1, M, 4] (top, left, bottom, right as shares of the input), `classes` [1, M],
        `scores` [1, M] and `count` [1]; best first, zeros after `count`. Parity is that of `converted`, and of these
        outputs with what numpy makes of the Keras network's; where boxes of one image changed places, of other boxes.

    Raises:
        ConversionError: the operator gives other boxes than numpy for the same outputs of the network, or finds none on
            any image, so that nothing can be checked.
    """
    [about] = converted.inputs
    size = (about.shape[2], about.shape[1])
    model = append_tail(converted.model, table, size)
    if about.quantization is not None:
        inputs = about.quantization.integers(inputs)
    made = LceInterpreter(model, xnnpack=converted.xnnpack).run([inputs])
    found = dict(zip(output_names(model), made, strict=True))
    decoded = final_outputs(converted.found, table, size)
    _require_same(decoded, found)
    _require_same_of_our_runtime(model, inputs, found)
    chosen = _steady(converted, table, size, found)
    if not found["count"][chosen].any():
        raise ConversionError(
            f"no box on {len(inputs)} images has a score of at least {table.min_score:g}, so that the model with "
            "post-processing cannot be checked",
            "Train longer, or export it without --postprocess",
        )
    names = output_names(model)
    return dataclasses.replace(
        converted,
        model=model,
        outputs=tuple(TensorSignature(name, (1, *found[name].shape[1:]), "float32") for name in names),
        # In int8 outputs differ from Keras' by more than rounding, and parity is with the network rounded alike.
        parity=_parity(
            converted.parity,
            decoded if converted.report.int8_operators else final_outputs(converted.expected, table, size),
            found,
        ),
        golden_indices=chosen,
        golden_inputs=(np.ascontiguousarray(inputs[chosen]),),
        golden_outputs=tuple(np.ascontiguousarray(found[name][chosen], np.float32) for name in names),
        report=dataclasses.replace(converted.report, operators=operator_histogram(model)),
    )


def append_tail(model: bytes, table: Table, size: tuple[int, int]) -> bytes:
    """The flatbuffer with the operators that make boxes of its outputs.

    Args:
        model: with outputs `scores_s` [1, H / s, W / s, K] and `boxes_s` [1, H / s, W / s, 4], float32 or int8.
        table: K labels, strides, and how outputs become boxes.
        size: W and H of the input, pixels.
    """
    tail = Appender.of(model)
    places = dict(zip(output_names(model), tail.outputs, strict=True))
    scores: list[int] = []
    sides: list[int] = []
    middles, strides = [], []
    for stride in table.strides:
        high, wide = size[1] // stride, size[0] // stride
        for part, last, into in (("scores", len(table.labels), scores), ("boxes", 4, sides)):
            name = f"{part}_{stride}"
            into.append(tail.reshaped(tail.in_float(int(places[name]), name), [1, high * wide, last], f"{name}_flat"))
        y, x = np.meshgrid(np.arange(high), np.arange(wide), indexing="ij")
        middles.append((np.stack([y.ravel(), x.ravel()], axis=1) + 0.5) * stride)
        strides.append(np.full((high * wide, 1), stride))
    middle, stride_of = (np.concatenate(one)[np.newaxis].astype(np.float32) for one in (middles, strides))
    cells, builtin = middle.shape[1], tail.schema.BuiltinOperator
    pairs, fours, of_classes = [1, cells, 2], [1, cells, 4], [1, cells, len(table.labels)]
    score = tail.add(builtin.LOGISTIC, [tail.joined(scores, 1, of_classes, "logits")], of_classes, "all_scores")
    logs = tail.joined(sides, 1, fours, "log_distances")
    limit = np.float32(MAX_LOG_DISTANCE)
    logs = tail.add(builtin.MINIMUM, [logs, tail.constant(limit, "largest")], fours, "log_distances_below")
    logs = tail.add(builtin.MAXIMUM, [logs, tail.constant(-limit, "smallest")], fours, "log_distances_within")
    # In pixels, for left, top, right and bottom.
    distances = tail.add(builtin.EXP, [logs], fours, "strides_away")
    distances = tail.add(builtin.MUL, [distances, tail.constant(stride_of, "strides")], fours, "distances")
    top_left, bottom_right = (
        tail.gathered(distances, columns, 2, pairs, name)
        for columns, name in (([1, 0], "to_top_left"), ([3, 2], "to_bottom_right"))
    )
    moved = tail.add(builtin.SUB, [bottom_right, top_left], pairs, "asymmetry")
    moved = tail.add(builtin.MUL, [moved, tail.constant(np.float32(0.5), "half")], pairs, "offsets")
    middle_yx = tail.add(builtin.ADD, [moved, tail.constant(middle, "cells")], pairs, "middles")
    size_yx = tail.add(builtin.ADD, [bottom_right, top_left], pairs, "sizes")
    boxes = tail.joined([middle_yx, size_yx], 2, fours, "boxes_in_pixels")
    shares = tail.constant(np.tile(1 / np.array(size[::-1]), 2).astype(np.float32), "shares")
    anchors = tail.reshaped(tail.add(builtin.MUL, [boxes, shares], fours, "boxes_in_shares"), [cells, 4], "anchors")
    # Zeros, without a constant as large as all boxes.
    nothing = tail.add(builtin.SUB, [logs, logs], fours, "encodings")
    count = table.max_boxes
    shapes = ([1, count, 4], [1, count], [1, count], [1])
    outputs = tail.custom(OPERATOR, [nothing, score, anchors], shapes, _options(table))
    return tail.finished(dict(zip(FINAL_OUTPUTS, outputs, strict=True)))


def _options(table: Table) -> bytes:
    """Of the operator: every class by itself, as `boxes.suppress` has it."""
    options = flexbuffers.Builder()
    with options.Map():
        options.Int("max_detections", table.max_boxes)
        options.Int("max_classes_per_detection", 1)
        options.Int("detections_per_class", table.max_boxes)
        options.Bool("use_regular_nms", True)
        options.Float("nms_score_threshold", table.min_score)
        options.Float("nms_iou_threshold", table.max_overlap)
        options.Int("num_classes", len(table.labels))
        for side in ("y_scale", "x_scale", "h_scale", "w_scale"):
            options.Float(side, 1.0)
    return bytes(options.Finish())


def _require_same(decoded: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> None:
    """Raises `ConversionError` unless the operator gives what numpy does, of the same outputs of the network."""
    off = _off(decoded, found, TOLERANCE)
    if np.count_nonzero(off) > len(off) // 100:
        raise ConversionError(
            f"{OPERATOR} gives other boxes than numpy on {np.count_nonzero(off)} of {len(off)} images",
            "Export it without --postprocess",
        )


def _require_same_of_our_runtime(model: bytes, inputs: np.ndarray, found: Mapping[str, np.ndarray]) -> None:
    library = own_library()
    if library is None:
        return
    some = np.arange(min(len(inputs), 8)) * len(inputs) // min(len(inputs), 8)
    with captured_output():
        made = LiteRtInterpreter(model, 1, library).run([np.ascontiguousarray(inputs[some])])
    own = dict(zip(output_names(model), made, strict=True))
    off = _off({name: array[some] for name, array in found.items()}, own, _OF_NETWORKS)
    # Binary networks flip signs between runtimes in single images.
    if np.count_nonzero(off) > len(off) // 2:
        raise ConversionError(
            f"LiteRT with our runtime gives other boxes than LCE's interpreter on {np.count_nonzero(off)} of "
            f"{len(off)} images",
            "Export it without --postprocess",
        )


def _off(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], tolerance: float) -> np.ndarray:
    """Images on which final boxes differ: bool [N]. Boxes of nearly the same score may have changed places."""
    rows = [
        [{name: array[row] for name, array in one.items()} for one in (expected, found)]
        for row in range(len(found["count"]))
    ]
    return np.array([not _same(one, other, tolerance) for one, other in rows])


def _same(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], tolerance: float) -> bool:
    count = int(found["count"])
    if count != int(expected["count"]):
        return False
    free = np.ones(count, bool)
    for place in range(count):
        fits = (
            free
            & (expected["classes"][:count] == found["classes"][place])
            & (np.abs(expected["scores"][:count] - found["scores"][place]) <= tolerance)
            & (np.abs(expected["boxes"][:count] - found["boxes"][place]).max(axis=1) <= tolerance)
        )
        if fits.any():
            free[fits.argmax()] = False
        # Of boxes of one score, any may be those that the last places were left for.
        elif count < len(found["scores"]) or found["scores"][place] > expected["scores"][count - 1] + tolerance:
            return False
    return True


def _steady(converted: Converted, table: Table, size: tuple[int, int], found: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which images to take as golden: with boxes, whose order and number rounding would not change; int64 [G]."""
    limits = [
        dataclasses.replace(
            table,
            min_score=table.min_score + sign * _NEAR,
            max_overlap=min(1.0, max(0.0, table.max_overlap + sign * _NEAR)),
        )
        for sign in (-1, 1)
    ]
    counts = [final_outputs(converted.found, one, size)["count"] for one in limits]
    gaps = np.array(
        [
            np.min(-np.diff(scores[: int(count)]), initial=1.0)
            for scores, count in zip(found["scores"], found["count"], strict=True)
        ]
    )
    some = (found["count"] > 0) & (found["count"] < table.max_boxes)
    firm = (counts[0] == counts[1]) & (gaps > _NEAR) & some
    away = np.max(
        [
            np.abs(array - converted.found[name]).reshape(len(array), -1).max(axis=1)
            / max(converted.parity.outputs[name].tolerance, 1e-30)
            for name, array in converted.expected.items()
        ],
        axis=0,
    )
    rank = np.lexsort((-gaps, found["count"] == 0, ~firm, ~some, away > 1))
    return np.sort(rank[:GOLDEN_IMAGES])


def _parity(
    before: ParityFigures, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> ParityFigures:
    """That of the network, with the figures of its new outputs: where boxes changed places, of other boxes too."""
    outputs = {}
    for name, array in expected.items():
        away = np.abs(array - found[name])
        outputs[name] = OutputParity(float(away.max()), float(np.median(away)), _OF_NETWORKS)
    share = float(np.mean(~_off(expected, found, _OF_NETWORKS)))
    return dataclasses.replace(before, share_within_tolerance=share, outputs=outputs)
