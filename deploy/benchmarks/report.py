"""The tables of the benchmark, made from its raw records alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.networks import FLOAT32, INT8, NETWORKS
from benchmarks.records import newest
from benchmarks.variants import LCE, OURS

_LEAST_SPEEDUP = 1.7
# What a quiet machine's own services take.
_QUIET_CORES = 0.1
_TITLES = {OURS: "ours", LCE: "LCE", FLOAT32: "float32", INT8: "int8"}
Record = dict[str, Any]


def markdown(records: list[Record]) -> str:
    """Goals, latencies, start and memory, operators and conditions, for each machine.

    Args:
        records: see `benchmarks.records`; of each network the last run counts.
    """
    chosen = newest(records)
    blocks = [
        "# Our runtime beside LCE and XNNPACK\n",
        "Made from the raw records by `make bench` or `python -m benchmarks --report-only`; do not edit.\n"
        "Times are milliseconds for one image, copies of input and output included: the median of all calls, and from\n"
        "the 10th to the 90th percentile. A ratio is the median of the rounds' ratios and its 95 % interval\n"
        "(bootstrap over rounds); a goal is met when the interval's lower end reaches it.\n",
    ]
    for machine in dict.fromkeys(record["machine"] for record in chosen):
        part = [record for record in chosen if record["machine"] == machine]
        threads = sorted({record["threads"] for record in part})
        blocks.append(f"## {machine}\n{_warning(part)}\n### Goals\n\n{_goals(part, threads)}")
        blocks += [f"### Latency, {_plural(count, 'thread')}\n\n{_latencies(part, count)}" for count in threads]
        blocks.append(f"### Start and memory, {_plural(threads[0], 'thread')}\n\n{_starts(part, threads[0])}")
        blocks.append(f"### Who computes what\n\n{_graphs(part, threads[0])}")
        blocks.append(_conditions(part))
    return "\n".join(blocks)


def _warning(records: list[Record]) -> str:
    busiest = _busiest(records)
    if busiest is None or busiest <= _QUIET_CORES:
        return ""
    return (
        f"\n**Not to be quoted**: other processes kept up to {busiest:.2f} cores busy, which slows long calls and "
        "calls of several threads more than short ones of one.\n"
    )


def _busiest(records: list[Record]) -> float | None:
    return max((record["others_cores"] for record in records if record["others_cores"] is not None), default=None)


@dataclass(frozen=True)
class _Check:
    """A figure beside what it has to reach."""

    network: str
    ratio: dict[str, float] | None
    wanted: float

    @property
    def met(self) -> bool:
        return self.ratio is not None and self.ratio["low"] >= self.wanted

    def __str__(self) -> str:
        return f"{self.network} {_ratio(self.ratio) or 'not timed'}"


def _goals(records: list[Record], threads: list[int]) -> str:
    lines = [["goal", "threads", "lowest", "verdict", "missed by"], ["---"] * 5]

    def add(goal: str, count: int, checks: Iterable[_Check], wanted: int = 1) -> None:
        found = list(checks)
        if not found:
            return
        missed = [check for check in found if not check.met]
        lowest = min(found, key=lambda check: check.ratio["median"] if check.ratio else -1.0)
        verdict = "met" if not missed else f"missed by {len(missed)} of {len(found)}"
        if len(found) < wanted:
            verdict += f", {wanted - len(found)} not timed"
        lines.append([goal, str(count), str(lowest), verdict, "; ".join(map(str, missed))])

    with_goal = [network for network in NETWORKS.values() if network.goal is not None]
    for count in threads:
        ours = {r["network"]: r for r in records if r["variant"] == OURS and r["threads"] == count}
        timed = [network for network in with_goal if network.name in ours]
        for goal in sorted({network.goal or 0.0 for network in with_goal}, reverse=True):
            group = [network.name for network in with_goal if network.goal == goal]
            checks = [_Check(name, ours[name]["ratio_to_lce"], goal) for name in group if name in ours]
            add(f"at least {goal:g} times as fast as LCE: {', '.join(group)}", count, checks, len(group))
        checks = [_Check(network.name, ours[network.name]["ratio_to_lce"], 1.0) for network in timed]
        add("never slower than LCE", count, checks, len(with_goal))
        for network in timed:
            for other in network.beats:
                ratio = ours[network.name]["ratio_to"].get(f"{other} {FLOAT32}")
                add(f"{network.name} faster than {other} in {FLOAT32}", count, [_Check("it is", ratio, 1.0)])
        if count == 2:
            checks = [_Check(n.name, ours[n.name]["speedup_over_one_thread"], _LEAST_SPEEDUP) for n in timed]
            add(f"two threads at least {_LEAST_SPEEDUP:g} times as fast as one", count, checks, len(with_goal))
    return _table(lines) if len(lines) > 2 else "Our runtime was not timed.\n"


def _latencies(records: list[Record], threads: int) -> str:
    ratios = [f"{_TITLES[other]} / ours" for other in (LCE, FLOAT32, INT8)]
    head = ["network", *_TITLES.values(), ratios[0], "goal", "", *ratios[1:]]
    if threads > 1:
        head.append("ours, 1 thread / this")
    lines = [head, ["---"] * len(head)]
    notes = []
    for network, by_variant in _by_network(records, threads).items():
        ours = by_variant.get(OURS)
        known = NETWORKS.get(network)
        check = _Check(network, ours["ratio_to_lce"] if ours else None, (known.goal if known else None) or 0.0)
        wanted = check.wanted and ours
        others = ours["ratio_to"] if ours else {}
        line = [
            network,
            *(_milliseconds(by_variant.get(variant)) for variant in _TITLES),
            _ratio(check.ratio),
            f"{check.wanted:g}" if wanted else "",
            ("met" if check.met else "missed") if wanted else "",
            *(_ratio(others.get(other)) for other in (FLOAT32, INT8)),
        ]
        if threads > 1:
            line.append(_ratio(ours["speedup_over_one_thread"]) if ours else "")
        lines.append(line)
        notes += [f"{network}, {_title(name)}: {r['refused']}." for name, r in by_variant.items() if r["refused"]]
    beside = [
        f"In the same turns as {r['network']}: {r['variant']} {_milliseconds(r)} ms."
        for r in records
        if r["threads"] == threads and r["variant"] not in _TITLES
    ]
    return _table(lines) + "".join(f"\n{note}\n" for note in (*beside, *notes))


def _starts(records: list[Record], threads: int) -> str:
    head = ["network", "variant", "file KiB", "load ms", "first call ms", "later calls ms", "peak memory MiB"]
    lines = [head, ["---"] * len(head)]
    for network, by_variant in _by_network(records, threads).items():
        for variant, record in by_variant.items():
            if variant in _TITLES:
                size = f"{record['model_bytes'] / 1024:.0f}"
                later = _number(record["median_ms"])
                start = [_number(record[name]) for name in ("load_ms", "first_ms")]
                peak = "" if record["peak_mib"] is None else f"{record['peak_mib']:.1f}"
                lines.append([network, _TITLES[variant], size, *start, later, peak])
    return _table(lines)


def _graphs(records: list[Record], threads: int) -> str:
    head = ["network", "our nodes", "for", "XNNPACK nodes", "left to the interpreter", "largest difference from LCE"]
    lines = [head, ["---"] * len(head)]
    for network, by_variant in _by_network(records, threads).items():
        ours = by_variant.get(OURS)
        if ours and "our_nodes" in ours:
            operators, remaining = (_counts(ours[name]) for name in ("our_operators", "remaining_operators"))
            nodes = [str(ours[name]) for name in ("our_nodes", "xnnpack_nodes")]
            difference = f"{ours['max_difference']:.2g}" if "max_difference" in ours else ""
            lines.append([network, nodes[0], operators, nodes[1], remaining or "nothing", difference])
    return _table(lines) if len(lines) > 2 else "Our runtime was not timed.\n"


def _conditions(records: list[Record]) -> str:
    def all_of(values: Iterable[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or "unknown"

    pairs = dict.fromkeys(f"{name} {version}" for record in records for name, version in record["versions"].items())
    runtimes = [record["runtime"] for record in records if record["runtime"]]
    ours = (
        f"Our runtime: version {all_of(r['version'] for r in runtimes)}; kernels (those in use first): "
        f"{all_of(r['kernels'] for r in runtimes)}; isa {all_of(r['isa'] for r in runtimes)}.\n"
        if runtimes
        else ""
    )
    busiest = _busiest(records)
    load = (
        "How busy other processes kept the machine is not known."
        if busiest is None
        else f"Other processes kept {busiest:.2f} cores busy where it was most."
    )
    rounds = min((record["rounds"] for record in records if record["rounds"]), default=0)
    days = sorted({record["time"][:10] for record in records})
    return (
        f"### Conditions\n\nCommand: {all_of('`' + record['command'] + '`' for record in records)}. Commit: "
        f"{all_of(record['commit'] for record in records)}. Days: {', '.join(days)}.\n"
        f"Versions: Python {all_of(record['python'] for record in records)}, {', '.join(pairs)}.\n{ours}"
        f"Rounds: {rounds} or more of each network, all variants and thread "
        "counts in every round, in one process and in an order drawn anew; in its turn each is called for 5 ms that do "
        "not count, then up to 20 times within 20 ms.\n"
        f"{load}\n"
        "Weights are random, batch norms have the statistics of random images; LCE runs with indirect_bgemm, its "
        "fastest kernel, and XNNPACK, the same file as ours, with its constants folded; float32 and int8 are the same "
        "architecture without quantisers in LiteRT with XNNPACK, int8 calibrated on random images. Loading, first call "
        "and memory are each the median of fresh processes; memory is the rise of the peak over what was resident "
        "before loading.\n"
    )


def _by_network(records: list[Record], threads: int) -> dict[str, dict[str, Record]]:
    found: dict[str, dict[str, Record]] = {}
    for name in [*NETWORKS, *(record["network"] for record in records)]:
        own = {r["variant"]: r for r in records if r["network"] == name and r["threads"] == threads}
        if own:
            found[name] = own
    return found


def _title(variant: str) -> str:
    return _TITLES.get(variant, variant)


def _milliseconds(record: Record | None) -> str:
    if record is None:
        return ""
    if record["median_ms"] is None:
        return "refused"
    return f"{_number(record['median_ms'])} ({_number(record['p10_ms'])} to {_number(record['p90_ms'])})"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _ratio(ratio: dict[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _counts(operators: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in operators.items())


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _table(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
