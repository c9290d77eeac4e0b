"""Tables and transcripts of README and pages, made from the records in results/; `make tables` puts them in place.

A document holds a table between two marks, `<!-- table: NAME -->` and `<!-- end: NAME -->`, and what a command of the
tutorial printed between `<!-- printed: NAME -->` and `<!-- end: NAME -->`. A test fails where either differs from what
the records give today.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.bench_records import read_benchmarks
from bssl_tf.comparison.grid import Grid, Row, read_grid
from bssl_tf.comparison.records import STUDENT, measured
from bssl_tf.files import read_records, write_text
from bssl_tf_deploy.record import BINARY, Latency, Record, Run
from docs.predictions import predictions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
BOARDS = RESULTS / "boards"
# In the README, where they convince; on the page of results, with what belongs to them.
DOCUMENTS = (
    ROOT / "README.md",
    *(ROOT / "docs" / "pages" / name for name in ("results.md", "threats.md", "tutorial.md")),
)
_BLOCK = re.compile(r"(<!-- (table|printed): ([a-z0-9-]+) -->\n).*?(<!-- end: \3 -->)", re.DOTALL)
_CIFAR10, _TINY_IMAGENET, _FASHION_MNIST = "tfds:cifar10_jpeg75", "tfds:tiny_imagenet_100", "embedded"


def render(text: str) -> str:
    """A document with its blocks regenerated. Raises `KeyError` for a table or a transcript that does not exist."""
    kinds = {"table": lambda name: TABLES[name](), "printed": printed}
    return _BLOCK.sub(lambda found: found[1] + kinds[found[2]](found[3]) + found[4], text)


def printed(step: str) -> str:
    """What the command of one of the tutorial's steps printed, as a block of text."""
    record = next((one for one in read_records(RESULTS / "tutorial.jsonl") if one["step"] == step), None)
    if record is None:
        raise KeyError(step)
    return "\n".join(["```text", *record["output"], "```", ""])


def demo() -> str:
    """Accuracy of the demo over three seeds: mean and standard deviation."""
    return _accuracies(read_records(RESULTS / "demo.jsonl"))


def cifar10_teacher() -> str:
    """Accuracy of the teacher that is kept."""
    return _accuracies(read_records(RESULTS / "cifar10-teacher.jsonl"))


def _accuracies(records: Sequence[dict[str, Any]]) -> str:
    """A row for each kind of features; mean and standard deviation over records."""
    rows = []
    for place, row in enumerate(records[0]["rows"]):
        cells = [_mean_and_spread([record["rows"][place]["scores"][name][0] for record in records]) for name in _DEMO]
        name = "**student (1-bit)**" if row["features"] == "student" else row["features"]
        rows.append((name, str(row["width"]), *cells))
    return _markdown(("features", "width", "linear probe", "20-NN"), rows)


_DEMO = ("linear-probe", "knn-20")


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.1f}" + (f" ± {spread:.1f}" if spread else "")


def demo_margins() -> str:
    """How far the demo's student is above its controls, seed by seed."""
    rows = []
    for record in read_records(RESULTS / "demo.jsonl"):
        scores = {row["features"]: row["scores"] for row in record["rows"]}
        probe = scores["student"]["linear-probe"][0]
        untrained = scores["control: untrained student"]["linear-probe"][0]
        pixels = scores["control: raw pixels"]["knn-20"][0]
        rows.append((str(record["seed"]), f"{probe:.2f}", f"{probe - untrained:+.2f}", f"{probe - pixels:+.2f}"))
    heads = ("seed", "student's probe", "margin over the untrained student's", "margin over 20-NN on raw pixels")
    return _markdown(heads, rows)


def photos() -> str:
    """Top-1 on the test photos with 100, 250 and all labels: mean and standard deviation over seeds."""
    return accuracy_on_photos(read_records(RESULTS / "photos.jsonl"))


def accuracy_on_photos(records: Iterable[dict[str, Any]]) -> str:
    """The table of records of `docs.photos`."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for record in records:
        run, labels = Path(record["run"]).name, Path(record["data"]).name.split("-")[1]
        kind = re.sub(r"-(100|250|all)(?=-seed)|-seed\d+$", "", run)
        # Of an imported network the seed is that of the labels.
        seed = int((re.findall(r"seed(\d+)", run + record["data"]) or ["0"])[-1])
        for row in record["rows"]:
            for protocol, draws in row["scores"].items():
                found.setdefault((kind, row["features"], f"{protocol} {labels}"), {})[seed] = draws[0]
    if not found:
        return "Not measured yet.\n"
    rows = []
    for name, kind, features, protocol in _ON_PHOTOS:
        cells = [list(found.get((kind, features, f"{protocol} {labels}"), {}).values()) for labels in _LABELLED]
        rows.append((name, *(_mean_and_spread(values) if values else "" for values in cells)))
    return _markdown(("1-bit networks in bold", "100 labels", "250 labels", "all 3,500"), rows)


_LABELLED = ("100", "250", "all")
_STUDENT_ON_PHOTOS = "**fine-tuned, taught by the fine-tuned float network**"
# Name, run, features and protocol of each row.
_ON_PHOTOS = (
    ("float network, linear probe, 224 px", "teacher-224px", "float teacher", "linear-probe"),
    ("float network, linear probe, 128 px", "teacher", "float teacher", "linear-probe"),
    ("float network, fine-tuned, 128 px", "teacher", "student", "fine-tuned"),
    (_STUDENT_ON_PHOTOS, "tuned", "student", "fine-tuned"),
    ("**the same from random weights**", "random", "student", "fine-tuned"),
    ("**linear probe of the student pretrained without labels**", "student", "student", "linear-probe"),
    ("_control: untrained student_", "student", "control: untrained student", "linear-probe"),
    ("_control: raw pixels_", "student", "control: raw pixels", "linear-probe"),
)


def int8() -> str:
    """Top-1 of each exported form of the students, on all of their test images."""
    records = read_records(RESULTS / "int8.jsonl")
    rows = []
    for source in dict.fromkeys(record["source"] for record in records):
        own = {(r["input"], bool(r["int8_operators"])): r["accuracy"] for r in records if r["source"] == source}
        some = next(iter(own.values()))
        cells = [f"{own[form]['top1_percent']:.2f}" if form in own else "" for form in _FORMS]
        name = Path(source).name
        rows.append((f"`{name}`", str(some["images"]), f"{some['keras_top1_percent']:.2f}", *cells))
    head = ("run", "test images", "Keras", "float32 input", "uint8 input", "int8, uint8 input", "int8, int8 input")
    return _markdown(head, rows)


_FORMS = (("float32", False), ("uint8", False), ("uint8", True), ("int8", True))


def comparison() -> str:
    """All rows of the comparison, by the protocols that most readers ask for."""
    grid, records = _comparison()
    rows = [_compared(row, records) for row in grid.rows if row.variant != _CACHED]
    for name in ("float teacher", "control: untrained student", "control: raw pixels"):
        cells = [str(measured(records, features=name, dataset=_CIFAR10, protocol=one) or "") for one in _DEMO]
        rows.append((f"_{name}_", "", *cells, "", ""))
    return _markdown(("method", "seeds", "linear probe", "20-NN", "Tiny ImageNet-100", "Fashion-MNIST"), rows)


_CACHED = "teacher cached, views repeat"


def methods() -> str:
    """The headline rows alone: the best of each kind, with the controls."""
    grid, records = _comparison()
    rows = [_compared(row, records)[:3] for row in grid.rows if row.headline]
    for name in ("float teacher", "control: untrained student", "control: raw pixels"):
        rows.append((f"_{name}_", "", str(measured(records, features=name, dataset=_CIFAR10, protocol=_DEMO[0]))))
    return _markdown(("method", "seeds", "linear probe"), rows)


def _comparison() -> tuple[Grid, list[dict[str, Any]]]:
    return read_grid("cifar10", {}), read_records(RESULTS / "cifar10.jsonl")


def _compared(row: Row, records: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    own = [r for r in records if (r["method"], r["variant"], r["features"]) == (row.method, row.variant, STUDENT)]
    columns = [(_CIFAR10, "linear-probe"), (_CIFAR10, "knn-20")]
    columns += [(data, "linear-probe") for data in (_TINY_IMAGENET, _FASHION_MNIST)]
    cells = [str(measured(own, dataset=data, protocol=protocol) or "") for data, protocol in columns]
    name = f"**{row.name}**" if row.headline and not row.variant else row.name
    return (name, str(len({record["seed"] for record in own})), *cells)


def speed() -> str:
    """Latencies of some networks and of those that a user would pick instead, with one and with two threads."""
    return _speed("avx512")


def speed_avx2() -> str:
    """The same without AVX-512."""
    return _speed("avx2")


def _speed(instructions: str) -> str:
    timed = _timed(instructions)
    rows = []
    for name in _TIMED:
        runs = timed.get(name)
        if runs:
            cells = [_both(runs, variant) for variant in ("ours", "ours_int8", "int8", "float32", "lce")]
            rows.append((name, *cells))
    head = (
        *("ms, 1 thread / 2 threads", "our runtime", "our runtime, int8 ends"),
        *("same network, int8", "same network, float32", "LCE, fastest kernel"),
    )
    return _markdown(*_filled(head, rows)) if rows else "Not measured yet.\n"


def _both(runs: Mapping[int, Run], variant: str) -> str:
    found = [runs[threads].networks.get(variant) for threads in (1, 2)]
    return " / ".join(_milliseconds(one.latency) for one in found if one is not None)


_TIMED = ("QuickNet", "MobileNetV2", "MobileNetV3Small", "EfficientNet-Lite0", "BiRealNet", "ReActNet-A", "XNORNet")


def threads() -> str:
    """By how much two threads are faster than one."""
    rows = []
    for name, runs in _timed("avx512").items():
        ratio = runs[2].networks["ours"].ratio_to_one_thread if "ours" in runs[2].networks else None
        if ratio is not None:
            met = "met" if ratio.low >= _WANTED_OF_TWO_THREADS else "missed"
            rows.append((name, f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})", met))
    return _markdown(("network", "speed-up with two threads", f"target of {_WANTED_OF_TWO_THREADS}"), rows)


_WANTED_OF_TWO_THREADS = 1.75


def _timed(instructions: str) -> dict[str, dict[int, Run]]:
    """Network -> number of threads -> what was timed, the newest of each where our kernels used `instructions`."""
    found: dict[str, dict[int, Run]] = {}
    for record in read_benchmarks(RESULTS / "runtime-bench.jsonl"):
        assert record.subject is not None
        if record.library is not None and record.library.instructions == instructions:
            found.setdefault(record.subject.network, {}).update({run.threads: run for run in record.runs})
    return found


def predicted() -> str:
    """What is predicted for a Raspberry Pi 4 from counted instructions, beside what LCE's authors measured there."""
    counted = read_benchmarks(RESULTS / "arm64-instructions.jsonl")
    sizes = {
        (record.subject.network, variant): network.model_size_bytes
        for record in read_benchmarks(RESULTS / "runtime-bench.jsonl")
        for run in record.runs
        for variant, network in run.networks.items()
        if record.subject is not None and record.subject.network is not None
    }
    found = predictions(counted, sizes)
    rows = []
    for network in dict.fromkeys(network for network, _ in found):
        cells = [found.get((network, variant)) for variant in ("ours", "ours_int8", "int8", "float32")]
        words = [f"{cell.low_ms:.3g} to {cell.high_ms:.3g}" if cell else "" for cell in cells]
        rows.append((network, *words, _LCE_ON_PI_4.get(network, "")))
    head = (
        *("ms predicted, 1 thread", "our runtime", "our runtime, int8 ends", "same network, int8"),
        *("same network, float32", "LCE, measured by its authors"),
    )
    return _markdown(*_filled(head, rows)) if rows else "Nothing has been counted yet.\n"


# From LCE's README of 2022; Raspberry Pi 4 at 1.5 GHz.
_LCE_ON_PI_4 = {"QuickNetSmall": "27.7", "QuickNet": "45.0", "QuickNetLarge": "77.0"}


def boards() -> str:
    """Medians on users' boards, from the records in results/boards."""
    return times_on_boards(record for file in sorted(BOARDS.glob("*.jsonl")) for record in read_benchmarks(file))


def times_on_boards(records: Iterable[Record]) -> str:
    """The table of records that `bssl-tf bench --share` wrote."""
    rows = []
    for record in records:
        assert record.subject is not None
        size = "x".join(map(str, (record.subject.input_shape or ())[1:3]))
        for run in record.runs:
            cells = [
                _milliseconds(run.networks[name].latency) if name in run.networks else "" for name, _ in _ON_BOARDS
            ]
            rows.append((str(record.machine), record.subject.network, size, str(run.threads), *cells))
    if not rows:
        return "No board has been measured yet.\n"
    return _markdown(("board", "network", "pixels", "threads", *(title for _, title in _ON_BOARDS)), rows)


# Name in the record, and above its column.
_ON_BOARDS = (
    (BINARY, "ms, our runtime"),
    ("int8", "same network, int8"),
    ("float32", "same network, float32"),
    ("mobilenet_v2_int8", "MobileNetV2, int8"),
)


def _milliseconds(latency: Latency | None) -> str:
    assert latency is not None and latency.p50_ms is not None
    return f"{latency.p50_ms:.2f}" if latency.p50_ms < 10 else f"{latency.p50_ms:.1f}"


def _filled(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without the columns in which nothing stands."""
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    return [head[place] for place in kept], [[row[place] for place in kept] for row in rows]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def training_speed() -> str:
    """Training here next to PyTorch: images a second, their ratio, waiting for input, and the bound of each network."""
    return speed_of_training(read_records(RESULTS / "training-speed.jsonl"))


def speed_of_training(records: Iterable[dict[str, Any]]) -> str:
    """The table of records of `benchmarks.training`, of each case the newest."""
    newest = {tuple(record["case"][key] for key in _CASE): record for record in records}
    if not newest:
        return "Not measured yet.\n"
    rows = []
    for (network, size, precision), record in newest.items():
        speeds = [record["images_per_s"][side] for side in ("ours", "pytorch")]
        ratio, goals, shares = record["speed_up"], record["goals"], record["bound_share"]
        faster, compiled = (
            f"{one['median']:.2f} ({one['low']:.2f} to {one['high']:.2f})" if one else ""
            for one in (ratio, record.get("xla_speed_up"))
        )
        rows.append(
            (
                f"`{network}`, {size} px, {precision}",
                *(f"{speed['p50']:.4g} ({speed['p10']:.4g} to {speed['p90']:.4g})" for speed in speeds),
                faster,
                f"{goals['speed_up']:g} {_met(goals['speed_up_met'])}",
                f"{100 * record['input_share']['ours']:.1f} %, {_met(goals['input_share_met'])}",
                f"{record['bound_images_per_s']:.4g}",
                f"{100 * shares['ours']:.0f} % / {100 * shares['pytorch']:.0f} %",
                compiled,
            )
        )
    head = (
        *("images per second", "ours", "PyTorch", "ours / PyTorch", "target", "ours waits for input"),
        *("bound", "ours / PyTorch of the bound", "with XLA / without"),
    )
    return _markdown(head, rows)


_CASE = ("network", "image_size", "precision")


def _met(reached: bool) -> str:
    return "met" if reached else "missed"


def faults() -> str:
    """What became of damaged and forged files: the newest record of each kind."""
    rows = []
    newest = {one["kind"]: one for one in read_records(RESULTS / "faults.jsonl") if one["part"] == "mutants"}
    for one in newest.values():
        read = one["outcomes"].get("read", 0)
        refused = sum(one["outcomes"].values()) - read
        cells = (f"{one['mutants']:,}", f"{read:,}", f"{refused:,}", str(len(one["failures"])))
        rows.append(
            (one["kind"], *cells, f"{one['slowest_s']:.1f} s", f"{one['grown_mib']:.0f} MiB", one["commit"][:7])
        )
    header = ("kind of file", "files", "read", "refused", "failures", "slowest", "memory", "commit")
    return _markdown(header, rows)


TABLES: dict[str, Callable[[], str]] = {
    "predicted": predicted,
    "boards": boards,
    "cifar10-teacher": cifar10_teacher,
    "comparison": comparison,
    "demo": demo,
    "demo-margins": demo_margins,
    "faults": faults,
    "int8": int8,
    "methods": methods,
    "photos": photos,
    "speed": speed,
    "speed-avx2": speed_avx2,
    "threads": threads,
    "training-speed": training_speed,
}


def main() -> None:
    """Writes every table where it stands, and names the documents that changed."""
    for path in DOCUMENTS:
        before = path.read_text(encoding="utf-8")
        after = render(before)
        if after != before:
            write_text(path, after)
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
