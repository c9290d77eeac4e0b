"""What `bssl-tf init` does: a commented preset for a user's own photos, and the commands that use it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from bssl_tf.errors import StorageError, UsageError
from bssl_tf.files import write_text
from bssl_tf.settings import check_choice
from bssl_tf.workflows.plan import plan
from bssl_tf_deploy.library import TARGETS
from bssl_tf_deploy.system_errors import system_errors
from bssl_tf_deploy.text import printable

BOARDS = {
    "arm64": "a Raspberry Pi or another board with a 64-bit Linux",
    "x86_64": "a PC",
    "android-arm64": "an Android phone",
}
_TEACHER, _STUDENT = "runs/teacher", "runs/student"
_IMAGE_SIZE = 96


@dataclass(frozen=True)
class Initialised:
    """A preset that was written.

    Attributes:
        path: the file.
        photos: how many images there are.
        commands: what to run next, in order.
        later: what to run after that.
        advice: a sentence on what would be better; "" for none.
    """

    path: Path
    photos: int
    commands: tuple[str, ...]
    later: tuple[str, ...]
    advice: str


@system_errors()
def init(
    data: str | Path,
    *,
    target: str,
    budget: str,
    out: str | Path = "bssl-tf.toml",
    overwrite: bool = False,
) -> Initialised:
    """Writes a preset for `--preset FILE`, with the reasons in comments.

    Args:
        data: the folder with all photos, labelled or not.
        target: where the network will run: `arm64`, `x86_64` or `android-arm64`.
        budget: how long training may take in all, such as `1h`.
        out: the file to write, `.toml`.
        overwrite: replace it if it exists.

    Raises:
        ConfigError: `target` or `budget` is wrong.
        UsageError: `out` does not end in `.toml`.
        DataError: there are no photos.
        StorageError: `out` exists, or cannot be written.
    """
    out = Path(out)
    check_choice("the target", target, TARGETS)
    if out.suffix != ".toml":
        raise UsageError(f"{out} does not end in .toml", "Write --out bssl-tf.toml")
    if out.exists() and not overwrite:
        raise StorageError(f"{out} exists already", "Add --overwrite, or choose another --out")
    found = plan(Path(data), budget)
    preset = f"--preset {shlex.quote(str(out))}"
    teacher = (
        f"bssl-tf teacher --pretrained --image-size {_IMAGE_SIZE} --out {_TEACHER}"
        if found.pretrained
        else f"bssl-tf teacher {preset} --budget {found.teacher} --out {_TEACHER}"
    )
    commands = (teacher, f"bssl-tf pretrain {preset} --budget {found.student} --out {_STUDENT}")
    later = (f"bssl-tf evaluate {_STUDENT} --data LABELLED", f"bssl-tf export {_STUDENT} --target {target}")
    advice = (
        "with fewer than 50,000 photos a pretrained teacher is better: `pip install 'bssl-tf[pretrained]'`, then the "
        "same command with --overwrite"
        if found.lacking
        else ""
    )
    write_text(out, "\n".join(_lines(str(data), target, budget, found.photos, found.pretrained, (*commands, *later))))
    return Initialised(out, found.photos, commands, later, advice)


def _lines(
    data: str, target: str, budget: str, photos: int, pretrained: bool, commands: tuple[str, ...]
) -> tuple[str, ...]:
    source = tomli_w.dumps({"source": data}).rstrip("\n")
    images = (
        "# All photos, labelled or not; labels are not used here.",
        source,
        "# Pixels per side that the network sees. Twice as many show smaller things, and take four times as long.",
        f"image_size = {_IMAGE_SIZE}",
    )
    own = (
        "[teacher]",
        "# A float network that learns from the photos first, without labels.",
        'method = "moco"',
        "",
        "[teacher.data]",
        *images,
        "",
    )
    return (
        f"# {photos:,} images, for {BOARDS[target]}, in about {budget} of training. Run next:",
        *(f"#   {printable(command)}" for command in commands),
        "# LABELLED is a folder with one sub-folder of photos for each class.",
        "# --budget chooses the epochs, and, where this file names none, batch size, learning rate and queue. To",
        "# choose epochs yourself, omit it, and add a table [pretrain.training] with epochs = 50. All settings are",
        "# listed on the page Settings of the documentation.",
        "",
        *(() if pretrained else own),
        "[pretrain]",
        "# What the student learns from. "
        + (
            "It was trained with ImageNet's labels: with fewer than 50,000 photos it teaches more than one of your own."
            if pretrained
            else "It is trained by the first command."
        ),
        f'teacher = "{_TEACHER}"',
        "# Another way to learn: s2bnn, bssl or guided.",
        'method = "s2bnn"',
        "",
        "[pretrain.data]",
        *images,
        *(("# The teacher was trained on colours.", "channels = 3") if pretrained else ()),
        "",
        "[pretrain.backbone]",
        "# The 1-bit network. quicknet_small and larger ones learn more from many photos, and take longer to train.",
        'name = "binary_resnet"',
        "",
    )
