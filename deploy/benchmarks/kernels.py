"""`python -m benchmarks.kernels`: times each micro-kernel beside the bound of its own instructions.

Writes `results/runtime-kernels.jsonl`: the record of the last run, with its `kernels`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bssl_tf.environment import environment
from bssl_tf.errors import BsslError, RuntimeUnavailableError
from bssl_tf.files import write_text
from bssl_tf_deploy import conditions
from bssl_tf_deploy.record import KernelSpeed, Machine, Record

_TESTS = Path(__file__).parent.parent / "native" / "tests"
NAME = "runtime-kernels"


def time_kernels(build: Path) -> Record:
    """Compiles the kernels and times them, which takes seconds.

    Args:
        build: folder for what is compiled.

    Returns:
        A record of each kernel that this processor can run.

    Raises:
        RuntimeUnavailableError: there is no make or compiler, or it fails.
    """
    command = ["make", "--no-print-directory", "--silent", "-C", str(_TESTS), f"BUILD={build.resolve()}", "kernels"]
    about = environment(1)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        printed = getattr(error, "stderr", "") or str(error)
        raise RuntimeUnavailableError(
            f"the micro-kernels cannot be timed ({printed.strip().splitlines()[-1]})", "Install make and a C++ compiler"
        ) from error
    return Record(
        command="python -m benchmarks.kernels",
        commit=about["commit"],
        time=about["time"],
        machine=Machine.of(conditions.facts()),
        versions=about["versions"],
        kernels=tuple(KernelSpeed(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")),
    )


def main() -> None:
    """Writes the record to `results/`, and a line for each kernel to the terminal."""
    try:
        record = time_kernels(Path("build/native-tests"))
    except BsslError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
    write_text(Path("results", f"{NAME}.jsonl"), record.to_json() + "\n")
    for one in record.kernels:
        share = f", {100 * one.share:.0f} % of its bound" if one.share is not None else ""
        print(f"{one.kernel}: {one.gmacs:.0f} GMAC/s{share}")


if __name__ == "__main__":
    main()
