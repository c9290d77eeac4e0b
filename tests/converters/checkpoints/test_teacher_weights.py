"""A checkpoint's tensors are found by their names, turned to Keras's layout, and named when they are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.errors import NetworkError
from bssl_tf_converters.checkpoints import teacher_weights
from bssl_tf_converters.checkpoints.teacher_formats import CONTAINERS, FORMATS, WRAPPERS
from bssl_tf_converters.checkpoints.teacher_weights import TeacherWeights, Weight, read_teacher_weights

Tensors = dict[str, np.ndarray]
Read = Callable[[str, Tensors], TeacherWeights]
SHAPES = {"conv": (4, 3, 2, 1), "depthwise": (4, 1, 3, 2), "dense": (4, 3)}


def tensors_of(name: str, start: str) -> Tensors:
    """A checkpoint of this format, of tiny tensors."""
    rng, form = np.random.default_rng(0), FORMATS[name]
    made: Tensors = {}
    for _, theirs, kind in (*form.layers, *form.head_layers):
        if kind == "norm":
            for part in ("weight", "bias", "running_mean", "running_var"):
                made[f"{start}{theirs}.{part}"] = rng.uniform(0.1, 1, 4).astype(np.float32)
            made[f"{start}{theirs}.num_batches_tracked"] = np.array(3)
            continue
        if kind == "plain_norm":
            for part in ("running_mean", "running_var"):
                made[f"{start}{theirs}.{part}"] = rng.uniform(0.1, 1, 4).astype(np.float32)
            continue
        made[f"{start}{theirs}.weight"] = rng.normal(0, 1, SHAPES[kind]).astype(np.float32)
        if kind == "dense":
            made[f"{start}{theirs}.bias"] = rng.normal(0, 1, 4).astype(np.float32)
    return made


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads tensors as if they came from a file."""
    path = tmp_path / "teacher.pth"
    path.write_bytes(b"checkpoint")

    def reading(name: str, tensors: Tensors) -> TeacherWeights:
        monkeypatch.setattr(teacher_weights, "read_torch_checkpoint", lambda path: dict(tensors))
        return read_teacher_weights(name, path)

    return reading


@pytest.mark.parametrize(
    ("name", "start"),
    [
        (name, box + wrapper + prefix)
        for name, form in FORMATS.items()
        for box in CONTAINERS
        for wrapper in WRAPPERS
        for prefix in form.prefixes
    ],
)
def test_tensors_are_found_with_and_without_prefixes(name: str, start: str, read: Read) -> None:
    found, expected = (read(name, tensors_of(name, one)) for one in (start, FORMATS[name].prefixes[0]))
    for part in ("backbone", "head"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert ours.keys() == theirs.keys()
        for layer, weights in ours.items():
            for one, other in zip(weights, theirs[layer], strict=True):
                assert one.source == other.source
                np.testing.assert_array_equal(one.values, other.values)


def with_rest(tensors: Tensors, *names: str) -> Tensors:
    """With further tensors, as a training checkpoint has them."""
    return tensors | dict.fromkeys(names, np.ones((3, 3), np.float32))


def test_training_checkpoints_are_read_past_heads_optimisers_and_the_other_network(read: Read) -> None:
    """As the authors' programs save them; of two networks the one that the authors evaluate is taken."""

    def shifted(name: str, start: str) -> Tensors:
        return {key: one + 1 for key, one in tensors_of(name, start).items()}

    cases: list[tuple[str, str, Tensors]] = [
        ("moco_v1", "state_dict/module.encoder_q.", shifted("moco_v1", "state_dict/module.encoder_k.")),
        ("moco_v3", "state_dict/module.base_encoder.", shifted("moco_v3", "state_dict/module.momentum_encoder.")),
        ("dino", "teacher/backbone.", shifted("dino", "student/module.backbone.")),
        ("dino", "state_dict/student.backbone.", {}),
        ("byol", "state_dict/online_network.encoder.", shifted("byol", "state_dict/target_network.encoder.")),
        ("barlow_twins", "model/module.backbone.", {}),
        ("vicreg", "model/module.backbone.", {}),
    ]
    for name, start, others in cases:
        box = start.partition("/")[0]
        rest = (
            f"{box}/module.projector.0.weight",
            f"{box}/head.mlp.0.weight",
            "optimizer/state/0/mu",
            "dino_loss/center",
        )
        plain = tensors_of(name, FORMATS[name].prefixes[0])
        found, expected = read(name, with_rest(tensors_of(name, start) | others, *rest)), read(name, plain)
        for layer, weights in expected.backbone.items():
            for one, other in zip(found.backbone[layer], weights, strict=True):
                np.testing.assert_array_equal(one.values, other.values)


def test_a_released_backbone_is_taken_and_one_with_a_classifier_is_refused_as_trained_without_labels(
    read: Read,
) -> None:
    plain = tensors_of("torchvision_resnet50", "")
    for name in ("byol", "dino", "barlow_twins", "vicreg"):
        assert read(name, plain).form.labels_used is False
        with pytest.raises(NetworkError, match=r"tensor 'fc\.weight' is unknown"):
            read(name, with_rest(plain, "fc.weight"))
    assert read("torchvision_resnet50", with_rest(plain, "fc.weight", "fc.bias")).form.labels_used is True


def test_kernels_are_turned_to_the_layout_of_keras(read: Read) -> None:
    lite0, moco = tensors_of("efficientnet_lite0", ""), tensors_of("moco_v2", "encoder_q.")
    found = read("efficientnet_lite0", lite0).backbone
    [stem] = found["stem_conv"]
    assert (stem.source, stem.values.shape) == ("_conv_stem.weight", (2, 1, 3, 4))
    assert stem.values[1, 0, 2, 3] == lite0["_conv_stem.weight"][3, 2, 1, 0]
    [depthwise] = found["stage1_block1_depthwise_conv"]
    assert depthwise.values.shape == (3, 2, 4, 1)
    assert depthwise.values[2, 1, 3, 0] == lite0["_blocks.0._depthwise_conv.weight"][3, 0, 2, 1]
    dense, bias = read("moco_v2", moco).head["head_dense2"]
    np.testing.assert_array_equal(dense.values, moco["encoder_q.fc.2.weight"].T)
    np.testing.assert_array_equal(bias.values, moco["encoder_q.fc.2.bias"])
    norm = [weight.source for weight in found["stem_norm"]]
    assert norm == ["_bn0.weight", "_bn0.bias", "_bn0.running_mean", "_bn0.running_var"]


def test_a_bias_in_front_of_a_batch_norm_lowers_its_mean(read: Read) -> None:
    tensors = tensors_of("swav", "module.")
    head = read("swav", tensors).head
    assert len(head["head_dense1"]) == 1
    mean: Weight = head["head_norm1"][2]
    expected = tensors["module.projection_head.1.running_mean"] - tensors["module.projection_head.0.bias"]
    np.testing.assert_array_equal(mean.values, expected)


def test_names_that_were_sought_and_names_that_are_there_are_reported(read: Read) -> None:
    """`encoder_k.` in place of `encoder_q.`."""
    tensors = {name.replace("encoder_q", "encoder_k"): one for name, one in tensors_of("moco_v2", "encoder_q.").items()}
    with pytest.raises(NetworkError) as error:
        read("moco_v2", tensors)
    assert (
        "teacher.pth is not a moco_v2 checkpoint: no tensor is called 'encoder_q.conv1.weight', also with 'module.' "
        "before it and under 'state_dict/', 'teacher/', 'student/', 'model/', 'network/', 'model_state_dict/'; "
        f"prefixes of a network in it: 'encoder_k.' ({len(tensors)} tensors); it holds {len(tensors)}: "
        "'encoder_k.bn1.bias', "
    ) in str(error.value)
    assert "Name the format that it has (moco_v1, moco_v2, moco_v3, swav, byol, dino, barlow_twins, " in str(
        error.value
    )


def test_a_tensor_that_is_missing_wrong_or_unknown_is_named(read: Read) -> None:
    ones = np.ones(4, np.float32)
    cases: list[tuple[str, np.ndarray | None, str]] = [
        ("bn1.bias", None, "tensor 'encoder_q.bn1.bias' is missing"),
        ("bn1.bias", ones[:, None], "tensor 'bn1.bias' is float32[4, 1], not float32 of 1 dimension"),
        ("bn1.bias", ones.astype(np.int64), "tensor 'bn1.bias' is int64[4], not float32 of 1 dimension"),
        ("bn1.bias", ones * np.nan, "tensor 'bn1.bias' holds numbers that are not finite"),
        ("bn1.bias", ones.astype(np.float64) * 1e300, "tensor 'bn1.bias' holds numbers that are not finite"),
        ("bn1.running_var", -ones, "tensor 'bn1.running_var' holds negative numbers"),
        ("se.weight", ones, "tensor 'se.weight' is unknown"),
    ]
    for key, value, message in cases:
        tensors = tensors_of("moco_v2", "encoder_q.")
        tensors.pop(f"encoder_q.{key}", None)
        if value is not None:
            tensors[f"encoder_q.{key}"] = value
        with pytest.raises(NetworkError) as error:
            read("moco_v2", tensors)
        assert message in str(error.value)
