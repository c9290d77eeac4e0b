"""What each command needs. A test compares it with what the command's modules import."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Needs:
    """What a command cannot do without, and what it cannot do without the rest: name -> a few words."""

    required: tuple[str, ...]
    optional: dict[str, str] = field(default_factory=dict)


_BASE = ("python", "tomli", "tomli-w", "filelock", "platformdirs")
_IMAGES = (*_BASE, "numpy", "pillow")
_BACKEND = (*_IMAGES, "tensorflow", "tf-keras", "larq", "processor", "Keras 2")
_TRAIN = (*_BACKEND, "safetensors", "tqdm", "cache")
_TFDS = {"tensorflow-datasets": "no data sets of TFDS (--data tfds:NAME)", "TFDS folder": "TFDS cannot download"}
NEEDS = {
    "teacher": Needs((*_TRAIN, "scikit-learn"), _TFDS),
    "import-teacher": Needs((*_BACKEND, "safetensors")),
    "pretrain": Needs((*_TRAIN, "scikit-learn"), _TFDS),
    "evaluate": Needs((*_TRAIN, "scikit-learn"), _TFDS),
    "compare": Needs((*_TRAIN, "scikit-learn", "scipy", "matplotlib"), _TFDS),
    "zoo": Needs(_IMAGES),
    "check": Needs(
        (*_TRAIN, "scikit-learn", "larq-compute-engine", "tflite"), {"larq-zoo": "no larq_zoo:NAME", **_TFDS}
    ),
    "export": Needs(
        (*_TRAIN, "scikit-learn", "larq-compute-engine", "tflite", "compiler"),
        {"ziglang": "only for this kind of machine (--target)", "larq-zoo": "no larq_zoo:NAME", **_TFDS},
    ),
    "inspect": Needs((*_IMAGES, "tflite", "flatbuffers")),
    "run": Needs((*_IMAGES, "runtime")),
    "bench": Needs((*_BACKEND, "runtime", "interpreter")),
    "devices": Needs(_IMAGES, {"ssh": "no ssh:// devices", "adb": "no Android devices"}),
    "summary": Needs(_BASE),
    "report": Needs(
        (*_IMAGES, "tflite", "flatbuffers", "matplotlib"),
        dict.fromkeys((*_TRAIN[len(_IMAGES) :], "scikit-learn"), "only with --no-images") | _TFDS,
    ),
    "completion": Needs(_BASE),
    "doctor": Needs((), {"packaging": "does not compare versions"}),
}  # fmt: skip
