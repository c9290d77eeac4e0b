"""Run folders that were not trained: small, quick to write, and as odd as a test wants them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from bssl_tf.evaluation.predictions import Answers, Predictions, write_predictions
from bssl_tf.evaluation.records import RAW_PIXELS, STUDENT, Evaluation, SubjectScores, as_record, untrained
from bssl_tf.evaluation.verdict import Facts, make_verdict
from bssl_tf.settings import BackboneConfig, DataConfig, PretrainConfig, TeacherConfig, TrainingConfig
from bssl_tf_deploy.record import (
    Count,
    Golden,
    Latency,
    Machine,
    Network,
    OperatorTime,
    Profile,
    Record,
    Run,
    Start,
    State,
    Subject,
    Sustained,
    Window,
)
from tests.cli.test_inspect import small_model
from tests.deploy.bundles import write
from tests.edited import edited

VERSIONS = {"bssl-tf": "0.1.0", "tensorflow": "2.19.1"}
MACHINE = "a board, 4 cores, Linux aarch64"


def epochs(count: int = 4) -> list[dict[str, Any]]:
    """Records as `bssl` writes them, over two stages."""
    half = count // 2
    return [
        {
            **{"step": 10 * place, "stage": "binary_activations" if place <= half else "binary_weights"},
            **{"epoch": place if place <= half else place - half, "learning_rate": 0.01 / place, "seconds": 2.5},
            **{"images_per_s": 300.0, "loss": 3.0 / place, "kl": 2.0 / place, "feature_similarity": 1.0 / place},
            **{"balance": 0.1 * place, "target_entropy": 2.0 - 0.1 * place, "target_spread": 0.5},
        }
        for place in range(1, count + 1)
    ]


CLASSES = ("boot", "bag", "shirt")
IMAGES = 50


def answers() -> Answers:
    """60 % right and 30 % right, 50 images of three classes; the few-shot protocols have two draws."""
    truth = np.arange(IMAGES) % 3
    surety = np.linspace(0.4, 0.99, IMAGES)[np.newaxis]

    def right(*shares: float) -> Predictions:
        predicted = [np.where(np.arange(IMAGES) < share * IMAGES, truth, (truth + 1) % 3) for share in shares]
        return Predictions(np.stack(predicted), truth, np.repeat(surety, len(shares), axis=0))

    scores = {"linear-probe": right(0.6), "knn-20": right(0.58)}
    scores |= {"few-shot-svm-1": right(0.2, 0.24), "few-shot-svm-16": right(0.4, 0.42)}
    return {
        STUDENT: scores,
        untrained(STUDENT): {"linear-probe": right(0.4), "knn-20": right(0.4)},
        RAW_PIXELS: {"linear-probe": right(0.3), "knn-20": right(0.28)},
    }


def evaluation(found: Answers | None = None, **changes: Any) -> dict[str, Any]:
    """A record as `bssl-tf evaluate` writes it, of `found` or of `answers()`."""
    found = found or answers()
    subject = next(iter(found))
    record = as_record(
        Evaluation(
            run="x", subject=subject, data="embedded", data_settings=DataConfig("embedded", image_size=28, channels=1),
            train_images=100, test_images=IMAGES, test_fingerprint="a", train_fingerprint="b", classes=len(CLASSES),
            class_names=CLASSES, seed=0, method="bssl", backbone="binary_resnet", epochs=2, photos=100,
            labels_used=None, command="",
            conditions={"machine": MACHINE, "threads": 2, "versions": VERSIONS, "commit": "0123456789ab"},
            rows=tuple(SubjectScores.of(name, 32, protocols, None) for name, protocols in found.items()),
            verdict=make_verdict(subject, found, Facts("x", 100, 28, pretrained=False)),
        )
    )  # fmt: skip
    return record | changes


_MACHINE = Machine("local", "local", "a board", 4, "Linux", "aarch64")
_LATENCY = Latency(p50_ms=0.25, calls=100, min_ms=0.2, p90_ms=0.3, p99_ms=0.4, spread_ms=0.01)


def benchmark(bundle: str = "bundle-arm64", **changes: Any) -> Record:
    """A record as `bssl-tf bench` writes it, but without the calls themselves."""
    threads = changes.pop("threads", 1)
    networks = {
        "binary": Network("subject", "ours", 4096, latency=_LATENCY, start=Start(first_ms=0.5)),
        "float32": Network(
            "stock", "XNNPACK", 65536, latency=dataclasses.replace(_LATENCY, p50_ms=0.5), start=Start(first_ms=0.5)
        ),
    }
    record = Record(
        command=f"bssl-tf bench runs/x/{bundle} --threads 1",
        commit="0123456789ab",
        time="2026-01-02T03:04:05Z",
        machine=_MACHINE,
        versions={"ai-edge-litert": "2.3.0"},
        subject=Subject("binary_resnet", bundle=f"runs/x/{bundle}", target="arm64", input_shape=(1, 28, 28, 1)),
        golden=Golden(4, (threads,)),
        runs=(Run(threads, networks),),
    )
    return dataclasses.replace(record, **changes)


def with_network(record: Record, name: str, **changes: Any) -> Record:
    """A record one of whose networks is another in every run."""
    runs = tuple(
        dataclasses.replace(run, networks=run.networks | {name: dataclasses.replace(run.networks[name], **changes)})
        for run in record.runs
    )
    return dataclasses.replace(record, runs=runs)


def device_benchmark() -> Record:
    """A record as `bssl-tf bench --device` writes it: a run for each number of threads."""
    latency = dataclasses.replace(
        _LATENCY,
        p50_ms=1.0,
        min_ms=0.9,
        p90_ms=1.1,
        p99_ms=1.2,
        calls=30,
        durations_ns=tuple(900_000 + 1000 * call for call in range(30)),
    )
    start = Start(load_ms=1.0, first_ms=2.0, memory_before_kib=1024, peak_memory_kib=3072)
    networks = {
        "binary": Network("subject", "ours, the rest XNNPACK", 4096, latency=latency, start=start),
        "float32": Network("stock", "XNNPACK", 4096, latency=latency, start=start),
    }
    tool = Profile(
        "benchmark_model",
        (
            OperatorTime("LceBconv2d", "", "conv_1/Conv2D", mean_ms=0.7),
            OperatorTime("ADD", "", "a", mean_ms=0.1),
        ),
    )
    own = Profile(
        "runtime",
        (
            OperatorTime("CONV_2D", "stem", "a", ours=False, p50_ms=0.2, spread_ms=0.01, share=0.2),
            OperatorTime("LceBconv2d+ADD", "conv_1", "b", ours=True, p50_ms=0.8, spread_ms=0.1, share=0.8),
        ),
        *(20, 1.0, 0.9, 0.0),
    )
    flags = [(), (), (), ("throttled now",), ("throttled now",)]
    windows = tuple(
        Window(
            *(3.0 * place, 1 + 0.1 * place, 1.2 + 0.1 * place, 100),
            State(temperature_c=50.0 + place, clock_mhz=1800.0, throttled=seen),
        )
        for place, seen in enumerate(flags)
    )
    return benchmark(
        command="bssl-tf bench runs/x/bundle-arm64 --device kitchen",
        machine=Machine("kitchen", "ssh://pi", "Cortex-A72", 4, "Linux", "aarch64"),
        versions={"bssl-tf runtime": "0.1.0"},
        runs=(Run(1, networks, (tool, own)), Run(2, networks, (tool,))),
        sustained=Sustained(2, 15.0, windows, 1.4, True, ("throttled now",), 1.5),
    )


def emulated_benchmark() -> Record:
    """A record as `bssl-tf bench --device qemu-arm64` writes it."""
    return benchmark(
        command="bssl-tf bench runs/x/bundle-arm64 --device qemu-arm64",
        machine=Machine("qemu-arm64", "qemu-arm64", "aarch64", 2, "Linux", "aarch64", emulated=True),
        runs=(),
        counts=(Count("binary", "cortex-a72", 1_250_000, 900_000, 1000, 0.01, ("neon_8x32",)),),
    )


def rich_benchmark() -> Record:
    """A record with every call, and with the times of every operator."""
    record = benchmark(threads=2)
    for number, name in enumerate(("binary", "float32"), start=1):
        durations = tuple(1_000_000 * number + 1000 * call for call in range(200))
        latency = record.runs[0].networks[name].latency
        assert latency is not None
        record = with_network(record, name, latency=dataclasses.replace(latency, calls=200, durations_ns=durations))
    rows = (
        OperatorTime("LceBconv2d", "conv_1", "a", ours=True, p50_ms=0.1, spread_ms=0.0, share=2 / 3),
        OperatorTime("ADD", "add_1", "b", ours=False, p50_ms=0.05, spread_ms=0.0, share=1 / 3),
    )
    runs = tuple(
        dataclasses.replace(run, profiles=(Profile("runtime", rows, 20, 0.2, 0.2, 0.05),)) for run in record.runs
    )
    return dataclasses.replace(record, runs=runs)


def student_run(folder: Path, *, name: str = "bssl", bundle: bool = True, **files: Any) -> Path:
    """A finished run of `bssl-tf pretrain`; `files` replace `epochs`, `evaluation`, `answers` and
    `benchmarks`."""
    config = PretrainConfig(
        method=name,
        teacher="/somewhere/else/teacher",
        data=DataConfig("embedded", image_size=28, channels=1, limit=64),
        training=TrainingConfig(epochs=2, batch_size=16),
    )
    _write(folder, dataclasses.asdict(config), files.get("epochs", epochs()))
    (folder / "student").mkdir()
    (folder / "student" / "network.json").write_text(edited({}))
    (folder / "evaluation.json").write_text(edited(files.get("evaluation", evaluation())))
    write_predictions(folder, files.get("answers", answers()))
    if bundle:
        write(folder / "bundle-arm64", small_model())
    records = files.get("benchmarks", [benchmark(), rich_benchmark(), device_benchmark(), emulated_benchmark()])
    lines = (record.to_json() if isinstance(record, Record) else json.dumps(record) for record in records)
    (folder / "bench.jsonl").write_text("".join(line + "\n" for line in lines))
    return folder


def teacher_run(folder: Path) -> Path:
    """A run of `bssl-tf teacher` that is not finished."""
    config = TeacherConfig(data=DataConfig("embedded", image_size=28), backbone=BackboneConfig("float_resnet", width=8))
    _write(
        folder,
        dataclasses.asdict(config),
        [{"step": 1, "stage": "moco", "epoch": 1, "learning_rate": 0.1, "loss": 4.0}],
    )
    return folder


def _write(folder: Path, config: dict[str, Any], records: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(tomli_w.dumps(config))
    environment = {"machine": MACHINE, "threads": 2, "versions": VERSIONS, "commit": "0123456789ab"}
    (folder / "environment.json").write_text(edited(environment | {"time": "2026-01-02T03:04:05Z"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
