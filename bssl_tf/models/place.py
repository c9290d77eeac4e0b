"""Students of one's own by where they are; what is there, `models.own` finds out, with TensorFlow.

FILE.py:FUNCTION                  a builder `(image_size, channels, **sizes)` in the user's own code
FILE.h5, FILE.keras, FOLDER       a model that Keras 2 saved
model:NAME                        a model in the memory of a Python program
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Literal

from bssl_tf.errors import NetworkError
from bssl_tf.files import read_regular
from bssl_tf.models.registry import check_backbone, names
from bssl_tf.settings import CODE

MEMORY = "model:"
# The folder in a run that keeps such a student as it was before training.
START = "start"
_SAVED = (".h5", ".hdf5", ".keras", ".onnx", ".tflite", ".pb", ".pt", ".pth")
_MAX_CODE_BYTES = 1 << 24
Kind = Literal["code", "saved", "memory"]


def kind_of(name: str) -> Kind | None:
    """What `name` means, by its form alone; None for the name of a network in the registry."""
    if name.startswith(MEMORY):
        return "memory"
    if CODE.fullmatch(name):
        return "code"
    if name.lower().endswith(_SAVED) or os.sep in name or (name not in names() and Path(name).is_dir()):
        return "saved"
    return None


def split_code(name: str) -> tuple[Path, str]:
    """File and function of `FILE.py:FUNCTION`. Raises `NetworkError` where no function is named."""
    found = CODE.fullmatch(name)
    file, function = (found["file"], found["function"] or "") if found else (name, "")
    if not function.isidentifier():
        raise NetworkError(
            f"{name} does not name a function of the file",
            f"Write --student {file}:FUNCTION, a function (image_size, channels, **sizes) that returns a Keras model",
        )
    return Path(file), function


def short_name(name: str) -> str:
    """`name` without folders, which a bundle does not disclose."""
    return name if kind_of(name) == "memory" else Path(name).name


def require_named(recorded: str, named: str, out: Path) -> None:
    """Refuses code that only a run folder names, a stranger's perhaps: whoever resumes the run has to name it.

    Args:
        recorded: the student in its config.toml.
        named: the student in this command; empty if it has none.
        out: the run folder, which has not kept its student.

    Raises:
        NetworkError: it is code, and not named.
    """
    if kind_of(recorded) == "code" and not named:
        raise NetworkError(
            f"the run in {out} has not kept its student, which was made by {recorded}",
            "If that is your own code, repeat --student FILE.py:FUNCTION",
        )


def check_student(name: str) -> None:
    """What can be said of a student without TensorFlow, and without running anything. Raises `NetworkError`."""
    match kind_of(name):
        case None:
            check_backbone(name)
        case "memory":
            raise NetworkError(
                f"{name} was a model in the memory of a Python program, and this run has not kept it",
                "Call bssl_tf.pretrain(student=MODEL, ...) again",
            )
        case "code":
            file, function = split_code(name)
            _check_code(file, function)
        case "saved":
            _check_saved(Path(name))


def _check_code(file: Path, function: str) -> None:
    if not file.is_file():
        raise NetworkError(f"there is no file {file}", "Check --student FILE.py:FUNCTION")
    try:
        tree = ast.parse(read_regular(file, _MAX_CODE_BYTES), str(file))
    except (SyntaxError, ValueError) as error:
        raise NetworkError(f"{file} is not Python ({error})", "Correct it") from error
    defined = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    # What it imports or assigns may be called so too.
    mentioned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    mentioned |= {alias.asname or alias.name for node in ast.walk(tree) for alias in _imported(node)}
    if function not in defined and function not in mentioned and "*" not in mentioned:
        raise NetworkError(
            f"{file} has no function {function}",
            f"It defines {', '.join(defined)}" if defined else "Define it: def NAME(image_size, channels, **sizes)",
        )


def _imported(node: ast.AST) -> list[ast.alias]:
    return node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []


def _check_saved(path: Path) -> None:
    if not path.exists():
        raise NetworkError(f"there is no saved model {path}", "Check --student")
    if path.is_file() and path.suffix.lower() not in (".h5", ".hdf5", ".keras"):
        raise NetworkError(
            f"{path} cannot be trained: a student is a Keras 2 model, with its layers",
            "Pass FILE.h5, FILE.keras or the folder of a SavedModel, or FILE.py:FUNCTION",
        )
    if path.is_dir() and not (path / "saved_model.pb").exists():
        raise NetworkError(
            f"{path} is a folder without a SavedModel",
            "Pass a folder of model.save(FOLDER); a run is continued with --out RUN --resume",
        )
