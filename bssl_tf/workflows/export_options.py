"""What an export is asked for, checked as far as it can be before TensorFlow is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bssl_tf.errors import ConfigError, UsageError
from bssl_tf.keras_files.files import ZOO_PREFIX, require_there
from bssl_tf.settings import read_import
from bssl_tf.workflows.run_folders import run_config, task_of
from bssl_tf_deploy.bundle import check_free
from bssl_tf_deploy.heads import check_name
from bssl_tf_deploy.labelled import class_folders
from bssl_tf_deploy.library import TARGETS, refuse_32_bit

INPUTS = ("float32", "uint8", "int8")
POSTPROCESSES = ("none", "tflite")


def settle_options(
    source: str,
    *,
    target: str,
    out: str | Path | None,
    overwrite: bool,
    input: str,
    int8: bool,
    calibrate: int | None,
    explain: bool,
    postprocess: str,
    of_model: Mapping[str, object],
    heads: Mapping[str, str | Path],
) -> Path:
    """Checks what is wanted; see `export` for the options and for what is raised.

    Args:
        of_model: options that only a model has, None where they are not given.
        heads: folders of photos by the name of the head that is learned from each.

    Returns:
        The bundle's folder.
    """
    _check_choices(target, input, postprocess)
    int8 = int8 or input == "int8"
    if int8 and explain:
        raise UsageError("--explain compares with Keras to the last bit, which int8 does not keep", "Omit one of them")
    if calibrate is not None and not int8:
        raise UsageError("--calibrate needs --int8 or --input int8", "Add one of these, or omit it")
    run = is_run(source)
    if run:
        _refuse(of_model)
    variant = _variant(target, input, int8) + ("" if postprocess == "none" else f"-{postprocess}")
    path = Path(out) if out else _default_out(source, variant, is_run=run)
    check_free(path, overwrite=overwrite)
    if run:
        run_config(Path(source))
    elif not source.startswith(ZOO_PREFIX):
        require_there(Path(source))
    if postprocess != "none" and (task := task_of(Path(source))) != "detection":
        raise UsageError(f"--postprocess {postprocess} is for detectors, and {source} is for {task}", "Omit it")
    for name, folder in heads.items():
        check_name(name)
        class_folders(Path(folder))
    if heads and task_of(Path(source)) == "detection":
        raise UsageError("heads read the features of a classifier, and a detector has none", "Omit --head")
    return path


def is_run(source: str) -> bool:
    """Whether `source` is a folder of ours; of a path that does not exist, only its suffix tells that it is a model."""
    path = Path(source)
    if path.exists():
        return (path / "config.toml").is_file() or read_import(path) is not None
    return not source.startswith(ZOO_PREFIX) and path.suffix not in (".h5", ".hdf5", ".keras")


def _check_choices(target: str, input: str, postprocess: str) -> None:
    refuse_32_bit(target)
    choices = (("target", target, TARGETS), ("input", input, INPUTS), ("postprocess", postprocess, POSTPROCESSES))
    for name, value, known in choices:
        if value not in known:
            raise ConfigError(f"{name} is {value!r}", f"Choose one of {', '.join(known)}")


def _refuse(given: Mapping[str, object]) -> None:
    """Raises `UsageError` for an option that a run folder would make do nothing."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name} does not go with a run folder, which has its own", "Omit it")


def _variant(target: str, input: str, int8: bool) -> str:
    """What a bundle's folder is called after."""
    words = [target] if input == "float32" and not int8 else [target, input]
    return "-".join([*words, "int8"] if int8 and input != "int8" else words)


def _default_out(source: str, variant: str, *, is_run: bool) -> Path:
    path = Path(source.removeprefix(ZOO_PREFIX))
    if is_run:
        return path / f"bundle-{variant}"
    return path.parent / f"{path.name if path.is_dir() else path.stem}-bundle-{variant}"
