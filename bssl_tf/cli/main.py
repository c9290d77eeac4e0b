"""The `bssl-tf` command: loads a command's file when it is called, and turns errors into one line and a status."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys

import click
from click.shell_completion import CompletionItem

from bssl_tf import __version__
from bssl_tf.cli import _logging
from bssl_tf.errors import Interrupted
from bssl_tf_deploy.door import run_command
from bssl_tf_deploy.text import printable, show

# Name -> one line of help, here so that `--help` loads none of them.
COMMANDS = {
    "auto": "Go the whole way from photos to a bundle and a report, within a time.",
    "init": "Write a commented preset for your own photos, and print the next commands.",
    "teacher": "Train a float teacher on unlabelled images (MoCo v2, BYOL).",
    "import-teacher": "Make a teacher from a PyTorch checkpoint: MoCo v2, SwAV, EfficientNet-Lite0.",
    "pretrain": "Train a binary student without labels (s2bnn, bssl), or with one of the baselines.",
    "finetune": "Train the whole network of a pretrained student with labels.",
    "launch": "Run a training command as several workers on this machine.",
    "evaluate": "Measure the accuracy of a student or teacher, with controls.",
    "data": "Make the data sets that this project's figures were measured on.",
    "pack": "Pack a folder of images into shards, for training on many images.",
    "compare": "Compare methods over seeds: records, a table, a figure.",
    "zoo": "List pretrained students, or make a run folder from one.",
    "check": "Check whether LCE will keep a Keras model binary, and what to change.",
    "export": "Convert a student and its probe, or any Keras 2 classifier, into a bundle for a device.",
    "inspect": "Show what a .tflite file or a bundle consists of: operators, MACs, weights, memory.",
    "run": "Classify images with a bundle.",
    "embed": "Write the features of images to a file, for search and selection.",
    "similar": "Find the images that a network finds most similar to one image.",
    "select": "Choose the photos that are worth labelling first.",
    "bench": "Time a bundle on this machine or on devices, next to the float network of the same shape.",
    "devices": "List and check devices: processor, clock, memory, temperature, installed packages.",
    "deploy": "Run a bundle as a service on boards: install, switch, roll back, remove.",
    "summary": "Summarise a run: accuracy, bundles, the newest benchmark.",
    "report": "Show and compare runs on one page: accuracy, size, latency, training, images.",
    "completion": "Print a script that makes bash, zsh or fish complete commands, options and names.",
    "doctor": "Show what is installed, what is missing, which commands need it, and the next step.",
}
# Where a shell that wants to complete a line says so.
COMPLETE_VARIABLE = "_BSSL_TF_COMPLETE"


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"bssl_tf.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        if name not in COMMANDS and near and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # Not click's own, which loads all commands for their lines of help.
        found = [CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(__version__, prog_name="bssl-tf")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """From unlabelled images to a 1-bit vision network on a device.

    Usual order of commands: teacher, pretrain, evaluate, export, run, bench.
    """
    ctx.obj = {"debug": debug}


def main() -> None:
    """Runs the command line and exits with the error's status."""
    _logging.install()
    if COMPLETE_VARIABLE in os.environ:
        import bssl_tf.cli._shells  # noqa: F401  tells click how shells split words
    stopped = Interrupted(
        "stopped without saving the steps since the last checkpoint",
        "Run the same command again, teacher, pretrain and finetune with --resume",
    )
    run_command(_run, debug="--debug" in sys.argv[1:], interrupted=str(stopped))


def _run() -> int:
    try:
        # Without standalone mode click returns the status of `--help` and of a command that set one.
        status = cli(standalone_mode=False, complete_var=COMPLETE_VARIABLE)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        # click repeats what was given; its own text has lines.
        text = said.getvalue().replace(error.message, printable(error.message))
        show(*text.splitlines(), file=sys.stderr)
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0
