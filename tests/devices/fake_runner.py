"""Stands in for a phone's processor where our runner is executed: this machine's runner and libraries do the work.

It is given the command as the phone got it, looks whether what was pushed is what a phone would need, and puts this
machine's files in their places: `$HOST_RUNNER`, `$HOST_TFLITE`, and the installed runtime library. `$RUNNER_FAULT` lets
one thing go wrong: `wrong-output`, `killed`, `crashed`, `refused`, `no-record`, `no-durations`, `full-disk`.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

from bssl_tf_deploy.library import LIBRARY, own_library


def require_arm(file: str) -> bytes:
    content = Path(file).read_bytes()
    if content[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<HH", content, 16) != (3, 183):
        sys.exit(f"{file} is not for this processor")
    return content


def main() -> None:
    program, command, tflite, *rest = sys.argv[1:]
    if b"/system/bin/linker64\0" not in require_arm(program) or not os.access(program, os.X_OK):
        sys.exit(f"{program}: cannot be executed")
    require_arm(tflite)
    for position, word in enumerate(rest):
        if word.endswith(f"/{LIBRARY}"):
            require_arm(word)
            rest[position] = str(own_library())
    fault = os.environ.get("RUNNER_FAULT")
    if fault == "full-disk" and command == "run":
        rest[-1] = "/dev/full"
    done = subprocess.run(
        [os.environ["HOST_RUNNER"], command, os.environ["HOST_TFLITE"], *rest],
        capture_output=True,
        text=True,
        check=False,
    )
    if fault == "killed" and command == "time":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "crashed":
        os.kill(os.getpid(), signal.SIGABRT)
    if fault == "refused":
        sys.stderr.write(f"sh: {program}: can't execute: Permission denied\n")
        sys.exit(126)
    if fault == "wrong-output" and command == "run":
        output = Path(rest[-1])
        output.write_bytes(output.read_bytes()[::-1])
    out = done.stdout
    if fault == "no-record" and command == "time":
        out = out[: len(out) // 2]
    if fault == "no-durations" and command == "time":
        out = out.replace("durations_ns", "durations")
    sys.stdout.write("INFO: a library has something to say\n" + out)
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
