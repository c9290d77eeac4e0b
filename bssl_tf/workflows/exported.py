"""What `bssl-tf export` made, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bssl_tf.tasks import find_task as find_host_task
from bssl_tf_converters.lce.export import Converted
from bssl_tf_deploy import manifest as m
from bssl_tf_deploy.bundle import MODEL
from bssl_tf_deploy.head_commands import described
from bssl_tf_deploy.heads import Head
from bssl_tf_deploy.library import Library, bundled_name
from bssl_tf_deploy.tasks import find_task


@dataclass(frozen=True, eq=False)
class Exported:
    """A bundle that was written, and what was found out on the way.

    Attributes:
        path: the bundle's folder.
        manifest: what its `manifest.json` states.
        converted: the converted network, and how it compares with Keras.
        library: the runtime library for its target.
        heads: those that were learned on its features, by name.
    """

    path: Path
    manifest: m.Manifest
    converted: Converted
    library: Library
    heads: Mapping[str, Head] = field(default_factory=dict)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Exported({str(self.path)!r}, target={self.manifest.target!r})"

    def text_lines(self) -> list[str]:
        """What a person reads about it."""
        converted, library, table = self.converted, self.library, self.manifest.table
        binary, parity, task = converted.report, converted.parity, find_task(self.manifest.task)
        outputs, accuracy = parity.outputs.values(), getattr(table, "accuracy", None)
        tolerance = min(one.tolerance for one in outputs)
        median, largest = (max(getattr(one, f"{kind}_abs_difference") for one in outputs) for kind in ("median", "max"))
        int8 = f", {binary.int8_operators} convolutions and dense operators in int8" if binary.int8_operators else ""
        beside = "Keras, rounded to int8 in the same way," if int8 else "Keras"
        lines = [
            f"{self.path}: {MODEL} has {len(converted.model) / 1024:.1f} KiB",
            f"{binary.binary_convolutions} binary convolutions (LceBconv2d), {binary.float_convolutions} float, "
            f"{binary.fully_connected} float dense{int8}",
            f"parity with {beside} on {parity.images} images: {100 * parity.agreement:.2f} % {task.agreement}, "
            f"{100 * parity.share_within_tolerance:.2f} % within {tolerance:.2g}, "
            f"differences {median:.2g} (median) to {largest:.2g} (largest)",
        ]
        if accuracy is not None:
            for key, name in task.figures.items():
                own, of_keras = getattr(accuracy, key), getattr(accuracy, f"keras_{key}")
                lines.append(f"{name} on {accuracy.images} test images: {own:.2f} %, {of_keras:.2f} % in Keras")
            if (found := getattr(table, "calibration", None)) is not None:
                before, after = found.ece_percent_before, found.ece_percent_after
                with_temperature = f"{after:.2f} % with temperature {found.temperature:.4g}"
                lines.append(f"expected calibration error: {before:.2f} %, {with_temperature}")
        elif int8:
            same = find_host_task(self.manifest.task).same_answers(converted.expected, converted.found).mean()
            lines.append(f"{task.agreement} with Keras in float32 on {parity.images} images: {100 * same:.2f} %")
        needs = f", needs glibc {library.glibc} or newer" if library.glibc else ""
        size = f"{len(library.content) / 1024:.1f} KiB"
        lines.append(f"{bundled_name(self.manifest.target)}: {size}, by {library.compiler}{needs}")
        for name, head in self.heads.items():
            lines += [f"head {name}:", *described(head)]
        return lines
