"""What a Linux machine reports about itself: processor, clock, memory, temperature, throttling, energy.

Everything is read from /proc and /sys as it stands; what a machine does not tell is left out, never guessed. A harness
sends this file to a device by itself, before anything is installed there, so it imports nothing of this package.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

# Bits of the firmware's word on a Raspberry Pi (documentation of `vcgencmd get_throttled`).
_THROTTLED_BITS = {
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "soft temperature limit now",
    16: "under-voltage since start",
    17: "frequency capped since start",
    18: "throttled since start",
    19: "soft temperature limit since start",
}
_PI_FLAGS = "sys/devices/platform/soc/soc:firmware/get_throttled"


def facts(root: Path = Path("/")) -> dict[str, Any]:
    """What the machine is and what state it is in.

    Args:
        root: where `proc` and `sys` lie.

    Returns:
        `machine`, `pointer_bits`, `system`, `kernel`, `python`, `glibc` ("" for another C library), `cores`,
        `processor`, `memory_total_mib`, `memory_available_mib`, and what `state` returns.
    """
    memory = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if ":" in line)
    libc, version = platform.libc_ver()
    return {
        "machine": platform.machine(),
        "pointer_bits": 8 * struct.calcsize("P"),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "glibc": version if libc == "glibc" else "",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(root),
        "memory_total_mib": _kib(memory, "MemTotal") // 1024,
        "memory_available_mib": _kib(memory, "MemAvailable") // 1024,
        **state(root),
    }


def state(root: Path = Path("/")) -> dict[str, Any]:
    """What changes while a machine works; each key only where the machine tells it.

    Returns:
        `governors` (a name for each kind in use), `clock_mhz` and `clock_max_mhz` (the fastest core's),
        `temperature_c` (the hottest sensor's), `throttled` (the firmware's flags in words, empty if none is set),
        `power_mw` (milliwatts by rail).
    """
    found: dict[str, Any] = {}
    cpus = root / "sys/devices/system/cpu"
    governors = sorted({_text(file).strip() for file in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""})
    if governors:
        found["governors"] = governors
    for key, name in (("clock_mhz", "scaling_cur_freq"), ("clock_max_mhz", "cpuinfo_max_freq")):
        kilohertz = [_number(file) for file in cpus.glob(f"cpu[0-9]*/cpufreq/{name}")]
        if any(kilohertz):
            found[key] = max(kilohertz) / 1000
    # Zones that are switched off report 0 or less.
    zones = [_number(file) / 1000 for file in root.glob("sys/class/thermal/thermal_zone*/temp")]
    if any(zone > 0 for zone in zones):
        found["temperature_c"] = max(zones)
    flags = _throttled(root)
    if flags is not None:
        found["throttled"] = flags
    rails = {
        f"{_text(file.parent / 'name').strip() or file.parent.name} {file.name.removesuffix('_input')}": value / 1000
        for file in sorted(root.glob("sys/class/hwmon/hwmon*/power*_input"))
        if (value := _number(file)) > 0
    }
    if rails:
        found["power_mw"] = rails
    return found


def energy_uj(root: Path = Path("/")) -> dict[str, int]:
    """Energy counters in microjoules by domain; empty where there are none or they may not be read.

    They run over at `max_energy_range_uj`; see `energy_difference_uj`.
    """
    found = {}
    for file in sorted(root.glob("sys/class/powercap/*/energy_uj")):
        # Sub-domains are part of their package.
        if file.parent.name.count(":") == 1:
            value = _number(file)
            if value:
                found[f"{file.parent.name} {_text(file.parent / 'name').strip()}"] = value
    return found


def energy_difference_uj(before: dict[str, int], after: dict[str, int]) -> int | None:
    """Microjoules of all domains between two readings; None where a counter is missing or ran over."""
    if not before or before.keys() != after.keys() or any(after[name] < before[name] for name in before):
        return None
    return sum(after[name] - before[name] for name in before)


def throttled_words(flags: int) -> list[str]:
    """The firmware's flags in words."""
    return [words for bit, words in _THROTTLED_BITS.items() if flags >> bit & 1]


def _throttled(root: Path) -> list[str] | None:
    word = _text(root / _PI_FLAGS).strip()
    tool = shutil.which("vcgencmd") if not word and root == Path("/") else None
    if tool:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run([tool, "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
            word = done.stdout.strip().partition("=")[2].removeprefix("0x")
    try:
        return throttled_words(int(word, 16))
    except ValueError:
        return None


def _processor(root: Path) -> str:
    """The board's name on ARM, the processor's on x86."""
    board = _text(root / "proc/device-tree/model").strip("\0\n ")
    lines = _text(root / "proc/cpuinfo").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return board or next(iter(names), platform.machine())


def _kib(memory: dict[str, str], key: str) -> int:
    words = memory.get(key, "").split()
    return int(words[0]) if words and words[0].isdigit() else 0


def _number(file: Path) -> int:
    try:
        return int(_text(file).strip())
    except ValueError:
        return 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
