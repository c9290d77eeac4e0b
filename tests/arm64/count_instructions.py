"""Counts the instructions that aarch64 executes for one image, and what llvm-mca makes of the kernels' inner loops.

    python tests/arm64/count_instructions.py                  # all networks of the benchmark, hours
    python tests/arm64/count_instructions.py --networks QuickNet --processors cortex-a53

Needs the aarch64 rig (tests/arm64/make_rig.py), ziglang, a C compiler, llvm-mca (Debian package llvm), and the models
of the benchmark (`python -m benchmarks` makes them). Records (`bssl_tf_deploy.record`) go to
results/arm64-instructions.jsonl, in two kinds:

- with `counts`: qemu counts what is executed, with one thread, for two times 20 images after two others (XNNPACK: two
  times 4); see `bssl_tf.devices.instructions`. Emulation knows instructions, not time: a count shows nothing of caches,
  or of how many instructions a processor issues at once, and is never given as a time.
- with `loops`: llvm-mca's model of a processor at the inner loop of a kernel. A model of the core with perfect caches,
  not a measurement.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "deploy")]

from benchmarks.networks import DEFAULT, network  # noqa: E402
from benchmarks.variants import REFERENCES, VARIANTS  # noqa: E402
from bssl_tf.bench_records import append_benchmarks  # noqa: E402
from bssl_tf.devices.instructions import build_plugin, count_instructions  # noqa: E402
from bssl_tf.environment import environment  # noqa: E402
from bssl_tf.errors import DeviceError  # noqa: E402
from bssl_tf_deploy import conditions  # noqa: E402
from bssl_tf_deploy.record import Count, Loop, Machine, Record, Subject  # noqa: E402
from tests.arm64.make_rig import MAKE_COMMAND, PROCESSORS, Rig, RigError, find_rig  # noqa: E402

NATIVE = ROOT / "deploy" / "native"
SITE = "ai-edge-litert-2.3"
# With our library, and without, where one takes ten times as many instructions.
IMAGES, STOCK_IMAGES = 20, 4
MCA_PROCESSORS = ("cortex-a72", "cortex-a55", "cortex-a53")

_LABEL = re.compile(r"^([.\w]+):")
_BRANCH = re.compile(r"^\s+(?:b\.\w+|cbn?z|tbn?z)\s.*?([.\w]+)$")
_INSTRUCTION = re.compile(r"^\s+[a-z]")
_ITERATIONS = 100


def build_library(folder: Path) -> Path:
    """Builds the library for aarch64. Raises `RigError`."""
    out = folder / "libbssl_tf_runtime.so"
    _run([sys.executable, str(NATIVE / "build.py"), "--target", "arm64", "--compiler", "zig", "--out", str(out)])
    return out


def count(rig: Rig, processor: str, plugin: Path, model: Path, library: Path | None, variant: str = "ours") -> Count:
    """See `count_instructions`. Raises `DeviceError`: the model does not run."""

    def python(arguments: Sequence[str]) -> list[str]:
        # Python's hashes are the same each time, so that two runs differ in nothing but the images.
        return ["env", "PYTHONHASHSEED=0", *rig.python(processor, SITE, arguments, [str(plugin)])]

    images = IMAGES if library else STOCK_IMAGES
    return count_instructions(python, model, library, images, network=variant, processor=processor)


def inner_loop(assembly: str) -> list[str]:
    """The loop without another in it that has the most CNT instructions; empty where none has any."""
    lines = assembly.splitlines()
    labels = {match.group(1): number for number, line in enumerate(lines) if (match := _LABEL.match(line))}
    loops = []
    for end, line in enumerate(lines):
        branch = _BRANCH.match(line.partition("//")[0].rstrip())
        start = labels.get(branch.group(1)) if branch else None
        if start is not None and start < end:
            loops.append((start, end))
    innermost = [loop for loop in loops if not any(loop != other and _inside(other, loop) for other in loops)]
    bodies = [[line for line in lines[a : b + 1] if _INSTRUCTION.match(line)] for a, b in innermost]
    return max(bodies, key=_bit_counts, default=[]) if any(map(_bit_counts, bodies)) else []


def simulate(kernel: Path, processor: str, folder: Path) -> Loop | None:
    """What llvm-mca makes of the kernel's inner loop, None where it has none. Raises `RigError`."""
    out = folder / f"{kernel.stem}.s"
    flags = ["-O3", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off", "-g0"]
    target = ["-target", "aarch64-linux-gnu.2.17"]
    _run([sys.executable, "-m", "ziglang", "c++", *target, *flags, "-S", "-o", str(out), str(kernel)])
    loop = inner_loop(out.read_text(encoding="utf-8"))
    words = _bit_counts(loop)
    if words == 0:
        return None
    body = folder / "loop.s"
    # One pass of it: the branch has no target here and is left out.
    body.write_text("\n".join(line.partition("//")[0] for line in loop[:-1]) + "\n", encoding="utf-8")
    machine = ["-mtriple=aarch64-linux-gnu", f"-mcpu={processor}", f"-iterations={_ITERATIONS}"]
    said = _run(["llvm-mca", *machine, str(body)])
    cycles = re.search(r"Total Cycles:\s+(\d+)", said)
    bound = re.search(r"Block RThroughput:\s+([\d.]+)", said)
    if cycles is None or bound is None:
        raise RigError(f"llvm-mca reports nothing about {kernel.name}. Look at its version.")
    return Loop(
        kernel=kernel.stem,
        processor=processor,
        loop_instructions=len(loop),
        loop_words=words,
        cycles_per_word=round(int(cycles.group(1)) / _ITERATIONS / words, 3),
        bound_per_word=round(float(bound.group(1)) / words, 3),
    )


def _inside(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _bit_counts(lines: Sequence[str]) -> int:
    return sum(line.split()[0] == "cnt" for line in lines)


def _run(command: Sequence[str], timeout: float = 600) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise RigError(f"{command[0]} not found. Install it.") from error
    except subprocess.TimeoutExpired as error:
        raise RigError(f"{command[0]} takes longer than {timeout:.0f} s. Try a smaller network.") from error
    said = done.stdout + done.stderr
    if done.returncode != 0:
        last = (said.strip() or "no message").splitlines()[-1]
        raise RigError(f"{' '.join(command)[:200]} failed: {last}. Run it by hand.")
    return said


def _version(*command: str) -> str:
    found = re.search(r"\d+\.\d+\.\d+", _run(command))
    return found.group() if found else "unknown"


def _record(arguments: argparse.Namespace) -> None:
    rig = find_rig()
    if rig is None:
        raise RigError(f"there is no aarch64 rig. Make it with `{MAKE_COMMAND}`.")
    models = {
        (name, variant): arguments.models / f"{name}.{kind}.tflite"
        for name in arguments.networks
        for variant, kind in VARIANTS.items()
        if kind in network(name).kinds and variant not in REFERENCES.values()
    }
    missing = [str(model) for model in models.values() if not model.exists()]
    if missing:
        raise RigError(f"{missing[0]} is not there. Make the models with `PYTHONPATH=deploy python -m benchmarks`.")
    found = environment(1)
    versions = found["versions"] | {"qemu": _version("qemu-aarch64", "--version")}
    versions["zig"] = _version(sys.executable, "-m", "ziglang", "version")
    about = Record(
        command=shlex.join(["python", *sys.argv]),
        commit=found["commit"],
        time=found["time"],
        machine=Machine.of(conditions.facts()),
        versions=versions,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        library = build_library(folder)
        if shutil.which("llvm-mca") is not None:
            about = dataclasses.replace(about, versions=versions | {"llvm": _version("llvm-mca", "--version")})
            kernels = sorted((NATIVE / "kernels").glob("neon_*.cc"))
            simulated = (simulate(kernel, processor, folder) for kernel in kernels for processor in MCA_PROCESSORS)
            loops = tuple(loop for loop in simulated if loop is not None)
            append_benchmarks(arguments.results, dataclasses.replace(about, loops=loops))
            for loop in loops:
                print(f"{loop.kernel:20} {loop.processor:11} {loop.cycles_per_word} cycles per word")
        emulated = dataclasses.replace(
            about,
            machine=dataclasses.replace(about.machine, emulated=True),
            versions=about.versions | {"ai-edge-litert, emulated": SITE.removeprefix("ai-edge-litert-")},
        )
        plugin = build_plugin(folder)
        for (name, variant), model in models.items():
            for processor in arguments.processors:
                one = count(rig, processor, plugin, model, library if variant in REFERENCES else None, variant)
                append_benchmarks(
                    arguments.results, dataclasses.replace(emulated, subject=Subject(name), counts=(one,))
                )
                print(f"{name:16} {variant:16} {processor:11} {one.instructions / 1e6:9.1f} M instructions", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Counts the instructions that aarch64 executes for one image.")
    parser.add_argument("--networks", nargs="+", default=DEFAULT, help="of the benchmark (default: all)")
    parser.add_argument("--processors", nargs="+", default=["cortex-a72"], choices=sorted(PROCESSORS))
    parser.add_argument("--models", type=Path, default=ROOT / "runs" / "bench-models", help="folder of the models")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "arm64-instructions.jsonl")
    try:
        _record(parser.parse_args())
    except (RigError, DeviceError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
