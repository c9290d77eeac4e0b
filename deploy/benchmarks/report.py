"""The tables of the benchmark, made from its raw records alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.networks import BINARY, FLOAT32, INT8, MOBILENET, NETWORKS
from benchmarks.records import Contestant, newest
from benchmarks.variants import LCE, LCE_INT8, OURS, OURS_INT8, REFERENCES, VARIANTS
from bssl_tf_deploy.record import Ratio, Record, Start

_LEAST_SPEEDUP = 1.75
# What a quiet machine's own services take.
_QUIET_CORES = 0.1
_TITLES = {
    OURS: "ours",
    OURS_INT8: "ours, int8 ends",
    LCE: "LCE",
    LCE_INT8: "LCE, int8 ends",
    FLOAT32: "float32",
    INT8: "int8",
}


def render(records: Iterable[Record]) -> str:
    """Goals, accuracies, latencies, start and memory, operators and conditions, for each machine.

    Args:
        records: of the benchmark; of each network the last run counts.
    """
    chosen = newest(records)
    blocks = [
        "# Our runtime compared with LCE and XNNPACK\n",
        "Made from the raw records by `make bench` or `python -m benchmarks --report-only`; do not edit.\n"
        "Times are milliseconds for one image, copies of input and output included: the median of all calls, and from\n"
        "the 10th to the 90th percentile. A ratio is the median of the rounds' ratios and its 95 % interval\n"
        "(bootstrap over rounds); a goal is met when the interval's lower end reaches it.\n",
    ]
    for machine in dict.fromkeys(one.machine for one in chosen):
        part = [one for one in chosen if one.machine == machine]
        threads = sorted({one.threads for one in part})
        blocks.append(f"## {machine}\n{_warning(part)}\n### Goals\n\n{_goals(part, threads)}")
        blocks.append(f"### Accuracy, latency and size\n\n{_accuracies(part, threads)}")
        blocks += [f"### Latency, {_plural(count, 'thread')}\n\n{_latencies(part, count)}" for count in threads]
        blocks.append(f"### Start and memory, {_plural(threads[0], 'thread')}\n\n{_starts(part, threads[0])}")
        blocks.append(f"### Division of work\n\n{_graphs(part, threads[0])}")
        blocks.append(_conditions(part))
    return "\n".join(blocks)


def _warning(timed: list[Contestant]) -> str:
    busiest = _busiest(timed)
    if busiest is None or busiest <= _QUIET_CORES:
        return ""
    return (
        f"\n**Not to be quoted**: other processes kept up to {busiest:.2f} cores busy, which slows long calls and "
        "calls of several threads more than short ones of one.\n"
    )


def _busiest(timed: list[Contestant]) -> float | None:
    known = (one.record.conditions.others_cores for one in timed)
    return max((cores for cores in known if cores is not None), default=None)


@dataclass(frozen=True)
class _Check:
    """A figure beside what it has to reach."""

    network: str
    ratio: Ratio | None
    wanted: float

    @property
    def met(self) -> bool:
        return self.ratio is not None and self.ratio.low >= self.wanted

    def __str__(self) -> str:
        return f"{self.network} {_ratio(self.ratio) or 'not timed'}"


def _goals(timed: list[Contestant], threads: list[int]) -> str:
    lines = [["goal", "threads", "lowest", "verdict", "missed by"], ["---"] * 5]

    def add(goal: str, count: int, checks: Iterable[_Check], wanted: int = 1) -> None:
        found = list(checks)
        if not found:
            return
        missed = [check for check in found if not check.met]
        lowest = min(found, key=lambda check: check.ratio.median if check.ratio else -1.0)
        verdict = "met" if not missed else f"missed by {len(missed)} of {len(found)}"
        if len(found) < wanted:
            verdict += f", {wanted - len(found)} not timed"
        lines.append([goal, str(count), str(lowest), verdict, "; ".join(map(str, missed))])

    for count in threads:
        timed_as = {
            variant: {one.network: one for one in timed if one.variant == variant and one.threads == count}
            for variant in REFERENCES
        }
        ours, ends = timed_as[OURS], timed_as[OURS_INT8]
        if count == 1:
            for goal in _distinct(network.goals.lce for network in NETWORKS.values()):
                group = [network.name for network in NETWORKS.values() if network.goals.lce == goal]
                checks = [_Check(name, ours[name].ratio(LCE), goal) for name in group if name in ours]
                add(f"at least {goal:g} times as fast as LCE: {', '.join(group)}", count, checks, len(group))
        for goal in _distinct(network.goals.int8 for network in NETWORKS.values()):
            group = [network.name for network in NETWORKS.values() if network.goals.int8 == goal]
            checks = [_Check(name, ends[name].ratio(INT8), goal) for name in group if name in ends]
            add(f"with int8 ends at least {goal:g} times as fast as all in int8", count, checks, len(group))
        for name, one in ends.items():
            wanted = NETWORKS[name].goals.mobilenet if name in NETWORKS else None
            if wanted is not None:
                check = _Check("it is", one.ratio(f"{MOBILENET} {INT8}"), wanted)
                add(f"{name} with int8 ends at least {wanted:g} times as fast as {MOBILENET} in int8", count, [check])
        for variant, own in timed_as.items() if count == 2 else ():
            kind = VARIANTS[variant]
            group = [name for name, network in NETWORKS.items() if network.goals.lce and kind in network.kinds]
            timed_ones = [(name, own[name].figures.ratio_to_one_thread) for name in group if name in own]
            checks = [_Check(name, ratio, _LEAST_SPEEDUP) for name, ratio in timed_ones]
            words = f"two threads at least {_LEAST_SPEEDUP:g} times as fast as one, {_TITLES[variant]}"
            add(words, count, checks, len(group))
    return _table(lines) if len(lines) > 2 else "Our runtime was not timed.\n"


def _distinct(goals: Iterable[float | None]) -> list[float]:
    return sorted({goal for goal in goals if goal is not None}, reverse=True)


@dataclass(frozen=True)
class _Choice:
    """What a user could pick: a network in one form, with its published accuracy."""

    name: str
    top1: float
    source: str
    size_bytes: int
    p50_ms: dict[int, float]
    int8_ends_ms: dict[int, float]

    def dominates(self, other: _Choice, threads: int) -> bool:
        """Is it at least as accurate and as fast, and not the same in both?"""
        mine, others = (self.top1, -self.p50_ms[threads]), (other.top1, -other.p50_ms[threads])
        return mine != others and all(a >= b for a, b in zip(mine, others, strict=True))


def _accuracies(timed: list[Contestant], threads: list[int]) -> str:
    choices = sorted(_choices(timed, threads), key=lambda choice: -choice.top1)
    if not choices:
        return "No network with a published accuracy was timed.\n"
    counts = " / ".join(map(str, threads))
    head = ("network", "top-1 %", "source", f"ms, {counts} threads", "with int8 ends", "file KiB")
    lines = [[*head, f"no slower and no less accurate, {_plural(threads[0], 'thread')}"], ["---"] * (len(head) + 1)]
    for choice in choices:
        better = [other.name for other in choices if other.dominates(choice, threads[0])]
        lines.append(
            [
                choice.name,
                f"{choice.top1:.1f}",
                choice.source,
                *(
                    " / ".join(_number(times.get(count)) for count in threads) if times else ""
                    for times in (choice.p50_ms, choice.int8_ends_ms)
                ),
                f"{choice.size_bytes / 1024:.0f}",
                "; ".join(better),
            ]
        )
    return _table(lines) + (
        "\nAccuracies are of trained networks of the same architecture; none has been published for int8 ends.\n"
    )


def _choices(timed: list[Contestant], threads: list[int]) -> Iterable[_Choice]:
    def all_of(network: str, variant: str) -> dict[int, Contestant]:
        own = (one for one in timed if (one.network, one.variant) == (network, variant))
        return {one.threads: one for one in own if one.figures.latency is not None}

    def times(found: dict[int, Contestant]) -> dict[int, float]:
        latencies = {count: one.figures.latency for count, one in found.items()}
        return {count: latency.p50_ms for count, latency in latencies.items() if latency and latency.p50_ms}

    for network in NETWORKS.values():
        published = network.published
        for kind, top1 in published.top1.items() if published else ():
            found = all_of(network.name, OURS if kind == BINARY else kind)
            if published and set(times(found)) >= set(threads):
                name = f"{network.name}, {'1-bit' if kind == BINARY else kind}"
                size = found[threads[0]].figures.model_size_bytes
                ends = times(all_of(network.name, OURS_INT8))
                yield _Choice(name, top1, published.source, size, times(found), ends)


def _latencies(timed: list[Contestant], threads: int) -> str:
    pairs = [(OURS, LCE), (OURS, FLOAT32), (OURS, INT8), (OURS_INT8, INT8)]
    head = ["network", *_TITLES.values(), *(f"{_TITLES[other]} / {_TITLES[own]}" for own, other in pairs)]
    if threads > 1:
        head += [f"{_TITLES[own]}, 1 thread / this" for own in REFERENCES]
    lines = [head, ["---"] * len(head)]
    notes = []
    for network, by_variant in _by_network(timed, threads).items():
        line = [network, *(_milliseconds(by_variant.get(variant)) for variant in _TITLES)]
        for own, other in pairs:
            line.append(_ratio(by_variant[own].ratio(other) if own in by_variant else None))
        if threads > 1:
            for own in REFERENCES:
                line.append(_ratio(by_variant[own].figures.ratio_to_one_thread if own in by_variant else None))
        lines.append(line)
        notes += [
            f"{network}, {_title(name)}: {one.figures.refused}."
            for name, one in by_variant.items()
            if one.figures.refused is not None
        ]
    return _table(lines) + _beside(timed, threads) + "".join(f"\n{note}\n" for note in notes)


def _beside(timed: list[Contestant], threads: int) -> str:
    """What a user would pick instead, in the same rounds as ours."""
    head = ["in the same rounds", "instead", "ms", *(f"it / {_TITLES[own]}" for own in REFERENCES)]
    lines = [head, ["---"] * len(head)]
    for network, by_variant in _by_network(timed, threads).items():
        for name, one in by_variant.items():
            if name not in _TITLES:
                ratios = [_ratio(by_variant[own].ratio(name) if own in by_variant else None) for own in REFERENCES]
                lines.append([network, name, _milliseconds(one), *ratios])
    return "" if len(lines) == 2 else f"\n{_table(lines)}"


def _starts(timed: list[Contestant], threads: int) -> str:
    head = ["network", "variant", "file KiB", "load ms", "first call ms", "later calls ms", "peak memory MiB"]
    lines = [head, ["---"] * len(head)]
    for network, by_variant in _by_network(timed, threads).items():
        for variant, one in by_variant.items():
            if variant in _TITLES:
                size = f"{one.figures.model_size_bytes / 1024:.0f}"
                later = _number(one.figures.latency.p50_ms if one.figures.latency else None)
                start = one.figures.start or Start()
                peak = "" if start.added_memory_mib is None else f"{start.added_memory_mib:.1f}"
                begins = [_number(start.load_ms), _number(start.first_ms)]
                lines.append([network, _TITLES[variant], size, *begins, later, peak])
    return _table(lines)


def _graphs(timed: list[Contestant], threads: int) -> str:
    head = ["network", "variant", "our nodes", "for", "XNNPACK nodes", "left to the interpreter"]
    lines = [[*head, "largest difference from LCE"], ["---"] * (len(head) + 1)]
    for network, by_variant in _by_network(timed, threads).items():
        for variant in REFERENCES:
            ours = by_variant.get(variant)
            graph = ours.figures.graph if ours else None
            if ours and graph:
                remaining = _counts(graph.remaining_operators) or "nothing"
                largest = ours.figures.agreement.max_difference if ours.figures.agreement else None
                difference = f"{largest:.2g}" if largest is not None else ""
                nodes = str(graph.our_nodes), _counts(graph.our_operators), str(graph.xnnpack_nodes)
                lines.append([network, _TITLES[variant], *nodes, remaining, difference])
    return _table(lines) if len(lines) > 2 else "Our runtime was not timed.\n"


def _conditions(timed: list[Contestant]) -> str:
    def all_of(values: Iterable[object]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or "unknown"

    records = [one.record for one in timed]
    pairs = dict.fromkeys(f"{name} {version}" for record in records for name, version in record.versions.items())
    libraries = [record.library for record in records if record.library is not None]
    ours = (
        f"Our runtime: version {all_of(one.version for one in libraries)}; kernels (those in use first): "
        f"{all_of(','.join(one.kernels) for one in libraries)}; isa {all_of(one.isa for one in libraries)}.\n"
        if libraries
        else ""
    )
    busiest = _busiest(timed)
    load = (
        "How busy other processes kept the machine is not known."
        if busiest is None
        else f"Other processes kept {busiest:.2f} cores busy where it was most."
    )
    latencies = [one.figures.latency for one in timed if one.figures.latency is not None]
    rounds = min((latency.rounds for latency in latencies if latency.rounds), default=0)
    days = sorted({record.time[:10] for record in records if record.time is not None}) or ["unknown"]
    return (
        f"### Conditions\n\nCommand: {all_of(f'`{record.command}`' for record in records)}. Commit: "
        f"{all_of(record.commit for record in records)}. Days: {', '.join(days)}.\n"
        f"Versions: Python {all_of(record.machine.python for record in records)}, {', '.join(pairs)}.\n{ours}"
        f"Rounds: {rounds} or more of each network, all variants and thread "
        "counts in every round, in one process and in a fresh random order; each is called for 5 ms that do not count, "
        "then up to 20 times within 20 ms.\n"
        f"{load}\n"
        "Weights are random, batch norms have the statistics of random images; LCE runs with indirect_bgemm, its "
        "fastest kernel, and XNNPACK, the same file as ours, with its constants folded; float32 and int8 are the same "
        "architecture without quantisers in LiteRT with XNNPACK, int8 calibrated on random images; with int8 ends, all "
        "that is not binary is int8, calibrated alike, input and output too. Loading, first call "
        "and memory are each the median of fresh processes; memory is the rise of the peak over what was resident "
        "before loading.\n"
    )


def _by_network(timed: list[Contestant], threads: int) -> dict[str, dict[str, Contestant]]:
    found: dict[str, dict[str, Contestant]] = {}
    for name in [*NETWORKS, *(one.network for one in timed)]:
        own = {one.variant: one for one in timed if one.network == name and one.threads == threads}
        if own:
            found[name] = own
    return found


def _title(variant: str) -> str:
    return _TITLES.get(variant, variant)


def _milliseconds(one: Contestant | None) -> str:
    if one is None:
        return ""
    latency = one.figures.latency
    if latency is None:
        return "refused"
    return f"{_number(latency.p50_ms)} ({_number(latency.p10_ms)} to {_number(latency.p90_ms)})"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _ratio(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _counts(operators: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in operators.items())


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _table(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
