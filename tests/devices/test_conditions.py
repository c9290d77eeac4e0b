"""What a machine says of itself, on a /proc and /sys that the test writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bssl_tf_deploy.conditions import energy_difference_uj, energy_uj, facts, state, throttled_words
from bssl_tf_deploy.measure import sustained, thread_counts
from tests.deploy.test_benchmark import Clock


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    """What a Raspberry Pi has, as its kernel writes it."""
    files = {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/meminfo": "MemTotal:        3884364 kB\nMemFree: 1 kB\nMemAvailable:    3500000 kB\n",
        "proc/cpuinfo": "processor\t: 0\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
        "sys/class/thermal/thermal_zone0/temp": "48686\n",
        "sys/class/thermal/thermal_zone1/temp": "0\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        "sys/class/hwmon/hwmon0/name": "ina226\n",
        "sys/class/hwmon/hwmon0/power1_input": "2500000\n",
    }
    for core in range(4):
        cpu = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        files |= {f"{cpu}/scaling_governor": "ondemand\n", f"{cpu}/cpuinfo_max_freq": "1800000\n"}
        files[f"{cpu}/scaling_cur_freq"] = f"{600000 + 300000 * core}\n"
    write(tmp_path, **files)
    return tmp_path


def test_a_raspberry_pi_tells_its_state(pi: Path) -> None:
    assert state(pi) == {
        "governors": ["ondemand"],
        "clock_mhz": 1500,
        "clock_max_mhz": 1800,
        "temperature_c": 48.686,
        "throttled": ["under-voltage now", "throttled now", "under-voltage since start", "throttled since start"],
        "power_mw": {"ina226 power1": 2500},
    }
    found = facts(pi)
    assert found["processor"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert (found["memory_total_mib"], found["memory_available_mib"]) == (3793, 3417)


def test_what_a_machine_does_not_tell_is_left_out(tmp_path: Path) -> None:
    assert state(tmp_path) == {} and energy_uj(tmp_path) == {}
    found = facts(tmp_path)
    assert found["memory_total_mib"] == 0 and found["processor"]
    write(tmp_path, **{"sys/class/thermal/thermal_zone0/temp": "broken", "proc/meminfo": "no colon\nMemTotal: x kB\n"})
    assert state(tmp_path) == {} and facts(tmp_path)["memory_total_mib"] == 0


def test_this_machine_has_facts() -> None:
    found = facts()
    assert found["cores"] >= 1 and found["memory_total_mib"] > 100 and found["pointer_bits"] == 64


@pytest.mark.parametrize(
    ("flags", "words"), [(0, []), (0x4, ["throttled now"]), (0x80000, ["soft temperature limit since start"])]
)
def test_the_firmwares_flags_in_words(flags: int, words: list[str]) -> None:
    assert throttled_words(flags) == words


def test_energy_counts_packages_once_and_not_over_a_wrap(tmp_path: Path) -> None:
    rapl = "sys/class/powercap/intel-rapl:0"
    write(tmp_path, **{f"{rapl}/name": "package-0\n", f"{rapl}/energy_uj": "1000\n"})
    write(tmp_path, **{f"{rapl}:0/name": "core\n", f"{rapl}:0/energy_uj": "700\n"})
    before = energy_uj(tmp_path)
    assert before == {"intel-rapl:0 package-0": 1000}
    write(tmp_path, **{f"{rapl}/energy_uj": "4000\n"})
    assert energy_difference_uj(before, energy_uj(tmp_path)) == 3000
    assert energy_difference_uj(energy_uj(tmp_path), before) is None
    assert energy_difference_uj({}, {}) is None


def test_a_sustained_run_notices_that_it_slows_down() -> None:
    clock = Clock()
    steady = sustained(clock.task("a", lambda call: 10), 1, 20, clock)
    assert len(steady.windows) == 20 and not steady.slower and steady.last_over_first_p50 == 1
    assert sum(window.calls for window in steady.windows) == 2000
    clock = Clock()
    heating = sustained(clock.task("a", lambda call: 10 if clock.now < 5e9 else 15), 1, 20, clock)
    assert heating.slower and heating.last_over_first_p50 == 1.5
    clock = Clock()
    assert len(sustained(clock.task("a", lambda call: 400), 1, 1, clock).windows) == 1


@pytest.mark.parametrize(
    ("text", "cores", "counts"),
    [("1", 4, (1,)), ("4,1,4", 1, (1, 4)), ("all", 1, (1,)), ("all", 4, (1, 2, 4)), ("all", 6, (1, 2, 4, 6))],
)
def test_numbers_of_threads(text: str, cores: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(text, cores) == counts


@pytest.mark.parametrize("text", ["0", "65", "", "1,x", "-1"])
def test_wrong_numbers_of_threads_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        thread_counts(text, 4)
