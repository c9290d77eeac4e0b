"""`bssl-tf completion`, and what the shell is offered for arguments and options: `shell_complete=` of each names it.

Each such function takes what click gives (context, parameter, what has been typed) and returns what fits; that of
devices is in `devices`, those of the zoo are in `zoo`. None loads TensorFlow, and none fails: it offers what it finds.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

import bssl_tf.cli._shells  # noqa: F401  tells click how shells split words
from bssl_tf.settings import presets as presets_of_package

# As in `bssl_tf.models.registry`, which loads TensorFlow.
STUDENTS = (
    *("binary_resnet", "bireal_net18", "quicknet", "quicknet_large", "quicknet_small", "quicknet_tiny", "reactnet_a"),
    "xnor_net",
)
FLOAT_NETWORKS = ("efficientnet_lite0", "float_resnet", "resnet18", "resnet34", "resnet50")
# As in `bssl_tf.workflows.networks_beside`.
OPPONENTS = ("mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0")
# As in `bssl_tf_converters.checkpoints.teacher_formats`.
TEACHER_FORMATS = (
    *("moco_v1", "moco_v2", "moco_v3", "swav", "byol", "dino", "barlow_twins", "vicreg"),
    *("float_resnet", "torchvision_resnet18", "torchvision_resnet34", "torchvision_resnet50", "efficientnet_lite0"),
)
Offers = list[CompletionItem]
Completer = Callable[[click.Context, click.Parameter, str], Offers]


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def command(shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, files and names when you press Tab.

    \b
    bash (4.4 or newer), in ~/.bashrc:
        eval "$(bssl-tf completion bash)"
    zsh, in ~/.zshrc, after compinit:
        eval "$(bssl-tf completion zsh)"
    fish:
        bssl-tf completion fish > ~/.config/fish/completions/bssl-tf.fish
    """
    from bssl_tf.cli.main import COMPLETE_VARIABLE, cli

    known = get_completion_class(shell)
    assert known is not None
    click.echo(known(cli, {}, "bssl-tf", COMPLETE_VARIABLE).source(), nl=False)


def words(*known: str) -> Completer:
    """Offers the words themselves."""
    return lambda context, parameter, typed: fitting(known, typed)


def files(context: click.Context, parameter: click.Parameter, typed: str) -> Offers:
    """Files and folders, which the shell knows."""
    return [CompletionItem(typed, type="file")]


def folders(context: click.Context, parameter: click.Parameter, typed: str) -> Offers:
    """Folders alone."""
    return [CompletionItem(typed, type="dir")]


def models(context: click.Context, parameter: click.Parameter, typed: str) -> Offers:
    """Files, folders, and larq-zoo's networks."""
    names = fitting((f"larq_zoo:{name}" for name in larq_zoo_names()), typed) if typed else []
    return names or files(context, parameter, typed)


def sources(context: click.Context, parameter: click.Parameter, typed: str) -> Offers:
    """What --data takes."""
    # Folders first: bash would put them in the place of words.
    return [*folders(context, parameter, typed), *fitting(("embedded", "tfds:"), typed)]


def presets(context: click.Context, parameter: click.Parameter, typed: str) -> Offers:
    """Presets of the package; TOML files where none fits."""
    return fitting(presets_of_package(), typed) or files(context, parameter, typed)


def codes(context: click.Context, parameter: click.Parameter, typed: str) -> Offers:
    """Codes of checks that may be allowed."""
    return fitting(allowable_codes(), typed)


def allowable_codes() -> list[str]:
    """What `bssl_tf_converters.lce.checks` lets --allow name, from its text, because its modules load TensorFlow."""
    found = []
    for file in ("before.py", "after.py", "running.py"):
        for node in ast.walk(_parsed("bssl_tf_converters", f"lce/checks/{file}")):
            match node:
                case ast.Call(func=ast.Name(id="register"), args=[_, ast.Constant(code), ast.Constant(severity)]):
                    given = {word.arg: word.value for word in node.keywords}
                    allowable = given.get("allowable", ast.Constant(severity == "error"))
                    if isinstance(allowable, ast.Constant) and allowable.value:
                        found.append(str(code))
    return found


def larq_zoo_names() -> list[str]:
    """Networks of larq-zoo, from its text, because it loads TensorFlow; none where it is not installed."""
    found = []
    for room in ("literature", "sota"):
        for node in ast.walk(_parsed("larq_zoo", f"{room}/__init__.py")):
            match node:
                case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts)):
                    found += [str(name.value) for name in elts if isinstance(name, ast.Constant)]
    return found


def _parsed(package: str, path: str) -> ast.Module:
    """The syntax of a package's file; nothing of it is imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return ast.Module([], [])
    try:
        return ast.parse((Path(spec.origin).parent / path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def fitting(known: Iterable[str], typed: str) -> Offers:
    """The words that begin with what has been typed."""
    return [CompletionItem(word) for word in known if word.startswith(typed)]
