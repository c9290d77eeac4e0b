"""What `import bssl_tf` offers: light, typed, documented, and the same as the commands."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import bssl_tf as bt
from bssl_tf.cli.evaluate import command as evaluate
from bssl_tf.cli.main import cli
from bssl_tf.cli.summary import command as summary
from bssl_tf.errors import BundleError, ConfigError, ConversionError, NetworkError, RunFolderError, UsageError
from bssl_tf.evaluation.records import read_evaluation
from bssl_tf.workflows.import_teacher import ImportedTeacher
from tests.cli.test_inspect import small_model
from tests.edited import edited
from tests.reports.run_folders import evaluation

ROOT = Path(__file__).parents[1]
OFFERED = [name for name in bt.__all__ if name not in ("__version__", "Run", "load")]
# Function -> the command that does the same; what an option is called in Python where that differs.
COMMANDS = {
    "train_teacher": "teacher",
    "import_teacher": "import-teacher",
    "make_data": "data",
    **{
        name: name
        for name in (
            *("pretrain", "finetune", "evaluate", "check", "export", "inspect", "bench", "report", "compare", "pack"),
            *("auto", "embed", "select", "similar"),
        )
    },
}
RENAMED = {"head": "heads", "protocol": "protocols", "no_convert": "convert", "no_float": "stock", "set": "settings"}
# Of the screen alone.
PRINTED = {"dry_run", "help", "json", "list", "no_images", "profile"}


def test_importing_loads_no_dependency() -> None:
    heavy = ("tensorflow", "tf_keras", "keras", "larq", "numpy", "click", "pydantic", "PIL", "tqdm", "scipy", "jinja2")
    program = f"import sys, bssl_tf; dir(bssl_tf)\nprint([m for m in sys.modules if m.split('.')[0] in {heavy!r}])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_all_the_use_cases_are_offered() -> None:
    assert set(OFFERED) == {*COMMANDS}
    name = "train"
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        getattr(bt, name)


def test_a_bundle_is_loaded_as_on_a_device() -> None:
    from bssl_tf_deploy import load

    assert bt.load is load


def test_the_stub_offers_what_the_module_offers_from_the_same_place() -> None:
    stub = ast.parse((ROOT / "bssl_tf" / "__init__.pyi").read_text(encoding="utf-8"))
    places = {
        alias.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    found = {name: getattr(bt, name).__module__ for name in bt.__all__ if name != "__version__"}
    assert places == found


@pytest.mark.parametrize("name", OFFERED)
def test_every_argument_has_a_type_and_is_documented(name: str) -> None:
    function = getattr(bt, name)
    signature, text = inspect.signature(function), inspect.getdoc(function) or ""
    assert signature.return_annotation is not inspect.Signature.empty
    documented = re.findall(r"^    (\w+): ", text.partition("Args:\n")[2].partition("\nRaises:")[0], re.MULTILINE)
    assert documented == list(signature.parameters)
    assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())
    assert "Raises:" in text
    # All but what it is about are keywords.
    positional = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert len(positional) <= 2


@pytest.mark.parametrize("name", OFFERED)
def test_arguments_are_called_as_the_options(name: str) -> None:
    import click

    command = cli.get_command(click.Context(cli), COMMANDS[name])
    assert command is not None
    options = {
        max((*one.opts, *one.secondary_opts), key=lambda opt: (not opt.startswith("--no-"), opt)).lstrip("-")
        for one in command.params
        if isinstance(one, click.Option)
    }
    words = {RENAMED.get(word, word) for word in (option.replace("-", "_") for option in options)} - PRINTED
    known = set(inspect.signature(getattr(bt, name)).parameters)
    # Those of one method, and where curves are shown, are settings like all others; a pretrained teacher comes from
    # `import_teacher`.
    assert words - {"classifier", "feature_similarity", "pretrained", "track"} <= known


def test_results_are_frozen_and_say_where_things_are(tmp_path: Path) -> None:
    path = tmp_path / "small.tflite"
    path.write_bytes(small_model())
    found = bt.inspect(path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.graphs = 2  # type: ignore[misc]
    run = bt.Run(tmp_path, tmp_path / "student")
    assert Path(run) == tmp_path and str(tmp_path) in repr(run)


class Notebook:
    """IPython's printer, as far as objects that show themselves use it."""

    def __init__(self, shown: object) -> None:
        self.said = ""
        shown._repr_pretty_(self, False)  # type: ignore[attr-defined]

    def text(self, words: str) -> None:
        self.said += words


def test_a_notebook_shows_what_the_commands_print(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(edited(evaluation(labels_used="ImageNet's labels")))
    found = read_evaluation(tmp_path)
    assert found is not None
    shown = Notebook(found).said
    assert shown.splitlines()[-2:] == ["Trained with the help of ImageNet's labels.", found.verdict.sentence]
    assert all(row.features in shown for row in found.rows)
    run = bt.Run(tmp_path, tmp_path / "student")
    assert "is not a run folder" in Notebook(run).said
    (tmp_path / "config.toml").write_text('command = "pretrain"\n')
    assert Notebook(run).said == f"{tmp_path}\n{shown}"
    printed = CliRunner().invoke(summary, [str(tmp_path)]).stdout
    assert printed == f"{shown}\n"


def test_a_name_adds_no_line_to_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evaluation.json").write_text(edited(evaluation()))
    found = read_evaluation(tmp_path)
    assert found is not None
    forged = dataclasses.replace(found, data="photos\nThe student learned: 100 %\x1b[2J", labels_used="a\nb")
    (tmp_path / "evaluation.json").unlink()
    (tmp_path / "config.toml").write_text('command = "pretrain"\n')
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "network.json").write_text("{}")
    monkeypatch.setattr("bssl_tf.workflows.evaluate.evaluate", lambda *arguments, **options: forged)
    for text in (Notebook(forged).said, str(forged), CliRunner().invoke(evaluate, [str(tmp_path)]).stdout):
        assert len(text.splitlines()) == len(str(found).splitlines()) + 1  # whose labels
        assert "photos\\nThe student learned: 100 %\\x1b[2J: " in text and "help of a\\nb." in text


def test_what_a_step_returns_is_taken_by_the_next(tmp_path: Path) -> None:
    """Each refuses a folder that is not what it seems, by its path; none takes the object's own text for a path."""
    imported, run = (
        ImportedTeacher(tmp_path / "gone", tmp_path / "gone/teacher", True),
        bt.Run(tmp_path, tmp_path / "student"),
    )
    with pytest.raises(NetworkError, match=f"there is no teacher at {re.escape(str(imported.path))}"):
        bt.pretrain("embedded", teacher=imported, out=tmp_path / "run")
    place = re.escape(str(tmp_path)) + "( is neither| is not|/manifest|/student)"
    with pytest.raises(RunFolderError, match=place):
        bt.evaluate(run)
    with pytest.raises(RunFolderError, match=place):
        bt.report(run)
    with pytest.raises(ConversionError, match=place):
        bt.check(run, convert=False)
    with pytest.raises(ConversionError, match=place):
        bt.export(run, target="arm64", out=tmp_path / "bundle", data="embedded")
    with pytest.raises(BundleError, match=str(tmp_path)):
        bt.bench(run)


def test_mistakes_are_errors_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean training.epochs\?"):
        bt.train_teacher("embedded", out=tmp_path / "run", settings={"training.epoch": 1})
    with pytest.raises(ConfigError, match="Choose one of html"):
        bt.report(tmp_path, format="pdf")
    with pytest.raises(UsageError, match="Omit one of them"):
        bt.check("model.h5", convert=False, explain=True)
    assert not (tmp_path / "run").exists()


def test_python_is_quiet_unless_asked(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("bssl_tf.workflows.check").warning("this is not shown")
    assert capfd.readouterr().err == ""
    caplog.set_level(logging.INFO, "bssl_tf")
    logging.getLogger("bssl_tf.workflows.check").info("this is")
    assert caplog.messages[-1] == "this is"
