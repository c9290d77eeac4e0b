"""Stands in for `adb` with one phone, which is a folder of this machine. The test puts it on PATH under that name.

It speaks the command line's contract as far as the harness uses it (documentation of Android's platform-tools; messages
as adb 1.0.41 prints them):

- `adb devices [-l]`, `adb [-s SERIAL] get-state | shell -T LINE | push LOCAL REMOTE`;
- `shell -T`: words are joined with spaces and a shell on the phone splits them again; input, output and messages are
  streams of bytes of their own; the exit status is the program's;
- failures of adb itself: status 1 and `error: ...` or `adb: error: ...` on stderr.

`$FAKE_ADB` names a folder: `phone/` is where commands run, `bin/` comes first on the phone's PATH (getprop), `serials`
lists what is plugged in, a line each with its state; `log` gets every call; `refuse-push` fills the disk, `damage-push`
damages what arrives. A runner that was pushed is for a phone's processor; `fake_runner` stands in for that.

What a real phone would still have to show:

1. adbd closes the input of a shell whose cable is pulled, and the shell survives its hang-up until it has removed the
   folder (`trap '' HUP` in Android's mksh).
2. toybox has `sha256sum`, `df -k` and `nproc` with this output on every Android since 7.
3. SELinux lets the shell user execute `benchmark_model` from /data/local/tmp, and lets that load our library there.
4. Google's prebuilt `benchmark_model` has --output_filepath and writes float32 outputs in it with an external delegate.
5. Our library for Android gives the golden outputs on a real processor; here the stand-in for `benchmark_model` uses
   this machine's library.
6. The figures: clock, throttling, and how much a phone's spread needs more than three processes of each network.

What the runner adds to that is listed in `bssl_tf.devices.android_runner`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(os.environ["FAKE_ADB"])
RUNNER = "bssl_tf_runner"


def fail(message: str) -> None:
    sys.exit(f"{message}")


def chosen(serial: str | None) -> str:
    """The state of the phone that is meant."""
    plugged = dict(line.split() for line in (HERE / "serials").read_text().splitlines())
    if serial is None:
        if not plugged:
            fail("error: no devices/emulators found")
        if len(plugged) > 1:
            fail("error: more than one device/emulator")
        serial = next(iter(plugged))
    if serial not in plugged:
        fail(f"error: device '{serial}' not found")
    if plugged[serial] == "unauthorized":
        fail(
            "error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n"
            "Try 'adb kill-server' if that seems wrong.\nOtherwise check for a confirmation dialog on your device."
        )
    if plugged[serial] == "offline":
        fail("error: device offline")
    return plugged[serial]


def main() -> None:
    arguments = sys.argv[1:]
    with (HERE / "log").open("a") as log:
        log.write(json.dumps(arguments) + "\n")
    serial = None
    if arguments[:1] == ["-s"]:
        serial, arguments = arguments[1], arguments[2:]
    command, *rest = arguments
    if command == "devices":
        print("List of devices attached")
        for line in (HERE / "serials").read_text().splitlines():
            print("\t".join(line.split()) if rest != ["-l"] else f"{line.split()[0]:22} {line.split()[1]} product:x")
        print()
        return
    state = chosen(serial)
    if command == "get-state":
        print(state)
    elif command == "push":
        local, remote = rest
        if (HERE / "refuse-push").exists():
            fail(
                f"adb: error: failed to copy '{local}' to '{remote}': remote couldn't create file: "
                "No space left on device"
            )
        shutil.copyfile(local, remote)
        if (HERE / "damage-push").exists():
            with Path(remote).open("ab") as file:
                file.write(b"!")
        print(f"{local}: 1 file pushed, 0 skipped.")
    elif command == "shell":
        assert rest[0] == "-T"
        environment = os.environ | {"PATH": f"{HERE}/bin:/usr/bin:/bin"}
        line = " ".join(rest[1:])
        if Path(shlex.split(line)[0]).name == RUNNER:
            line = shlex.join([sys.executable, str(Path(__file__).with_name("fake_runner.py"))]) + f" {line}"
        done = subprocess.run(["sh", "-c", line], cwd=HERE / "phone", env=environment, check=False)
        sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
    else:
        fail(f"adb: unknown command {command}")


if __name__ == "__main__":
    main()
