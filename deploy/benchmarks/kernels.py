"""`python -m benchmarks.kernels`: times each micro-kernel beside the bound of its own instructions.

Writes `results/runtime-kernels.jsonl`, a line for each kernel of the last run: `gmacs` and `bound_gmacs`, 10^9 binary
multiply-adds a second on one thread; `share` of the bound; and the conditions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bssl_tf.environment import environment
from bssl_tf.errors import BsslError, RuntimeUnavailableError
from bssl_tf.files import write_text

_TESTS = Path(__file__).parent.parent / "native" / "tests"
NAME = "runtime-kernels"


def time_kernels(build: Path) -> list[dict[str, Any]]:
    """Compiles the kernels and times them, which takes seconds.

    Args:
        build: folder for what is compiled.

    Returns:
        A record for each kernel that this processor can run.

    Raises:
        RuntimeUnavailableError: there is no make or compiler, or it fails.
    """
    command = ["make", "--no-print-directory", "--silent", "-C", str(_TESTS), f"BUILD={build.resolve()}", "kernels"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise RuntimeUnavailableError(
            f"the micro-kernels cannot be timed ({said.strip().splitlines()[-1]})", "Install make and a C++ compiler"
        ) from error
    about = environment(1)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [{**record, "command": "python -m benchmarks.kernels", **about} for record in found]


def main() -> None:
    """Writes the records to `results/`, and a line for each kernel to the terminal."""
    try:
        found = time_kernels(Path("build/native-tests"))
    except BsslError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
    write_text(Path("results", f"{NAME}.jsonl"), "".join(json.dumps(r, sort_keys=True) + "\n" for r in found))
    for record in found:
        share = f", {100 * record['share']:.0f} % of its bound" if "share" in record else ""
        print(f"{record['kernel']}: {record['gmacs']:.0f} GMAC/s{share}")


if __name__ == "__main__":
    main()
