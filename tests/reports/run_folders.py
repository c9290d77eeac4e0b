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
from tests.cli.test_inspect import small_model
from tests.deploy.bundles import write

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


def benchmark(bundle: str = "bundle-arm64", **changes: Any) -> dict[str, Any]:
    """A record as `bssl-tf bench` wrote it first."""
    figures = {"first_ms": 0.5, "min_ms": 0.2, "p50_ms": 0.25, "p90_ms": 0.3, "p99_ms": 0.4, "spread_ms": 0.01}
    return {
        **{"bundle": f"runs/x/{bundle}", "backbone": "binary_resnet", "machine": MACHINE, "threads": 1},
        **{"repetitions": 100, "warmup": 10, "runtime": "own", "versions": {"ai-edge-litert": "2.3.0"}},
        "command": f"bssl-tf bench runs/x/{bundle} --threads 1",
        "networks": {
            "binary": figures | {"kernel": "ours", "model_size_bytes": 4096, "repetitions": 100},
            "float": figures | {"kernel": "XNNPACK", "model_size_bytes": 65536, "p50_ms": 0.5, "repetitions": 100},
        },
    } | changes


def device_benchmark() -> dict[str, Any]:
    """A record as `bssl-tf bench --device` writes it: a run for each number of threads."""
    network = {"model_size_bytes": 4096, "min_ms": 0.9, "p50_ms": 1.0, "p90_ms": 1.1, "p99_ms": 1.2, "spread_ms": 0.1}
    rows = [
        {"type": "LceBconv2d", "mean_ms": 0.7, "name": "conv_1/Conv2D"},
        {"type": "ADD", "mean_ms": 0.1, "name": "a"},
    ]
    durations = [900_000 + 1000 * call for call in range(30)]
    profile = [
        {"operator": "CONV_2D", "layer": "stem", "output": "a", "ours": False, "p50_ms": 0.2, "spread_ms": 0.01},
        {"operator": "LceBconv2d+ADD", "layer": "conv_1", "output": "b", "ours": True, "p50_ms": 0.8, "spread_ms": 0.1},
    ]
    windows = [
        {"start_s": 3.0 * place, "p50_ms": 1 + 0.1 * place, "p90_ms": 1.2 + 0.1 * place, "repetitions": 100}
        | {"temperature_c": 50.0 + place, "clock_mhz": 1800.0, "throttled": ["throttled now"] * (place > 2)}
        for place in range(5)
    ]
    return {
        **{"bundle": "runs/x/bundle-arm64", "device": {"name": "kitchen", "address": "ssh://pi"}, "emulated": False},
        **{"command": "bssl-tf bench runs/x/bundle-arm64 --device kitchen", "kernel": "ours", "runtime": "own"},
        "facts": {"processor": "Cortex-A72", "cores": 4, "system": "Linux", "machine": "aarch64"},
        "versions": {"bssl-tf runtime": "0.1.0"},
        "operators": {"threads": 2, "rows": rows},
        "sustained": {
            **{"threads": 2, "seconds": 15.0, "windows": windows, "slower": True, "throttled": ["throttled now"]},
            "energy_mj_per_inference": 1.5,
        },
        "runs": [
            {
                "threads": threads,
                **({"operators": {"threads": 1, "rows": profile}} if threads == 1 else {}),
                "networks": {name: network | {"durations_ns": durations} for name in ("binary", "float32")},
            }
            for threads in (1, 2)
        ],
    }


def emulated_benchmark() -> dict[str, Any]:
    """A record as `bssl-tf bench --device qemu-arm64` writes it."""
    return {
        **{"bundle": "runs/x/bundle-arm64", "device": {"name": "qemu-arm64", "address": "qemu-arm64"}},
        **{"emulated": True, "facts": {"processor": "aarch64", "cores": 2, "system": "Linux", "machine": "aarch64"}},
        **{"golden": {"images": 4, "threads": [1], "as_expected": True}, "kernel": "ours", "runtime": "own"},
        "command": "bssl-tf bench runs/x/bundle-arm64 --device qemu-arm64",
        "instructions": {"processor": "cortex-a72", "instructions": 1_250_000, "vector": 900_000, "cnt": 1000},
    }


def rich_benchmark() -> dict[str, Any]:
    """A record with every call and every operator."""
    record = benchmark(threads=2)
    for number, network in enumerate(record["networks"].values(), start=1):
        network["durations_ns"] = [1_000_000 * number + 1000 * call for call in range(200)]
        network["operators"] = [
            {"operator": "LceBconv2d", "layer": "conv_1", "p50_ms": 0.1},
            {"operator": "ADD", "layer": "add_1", "p50_ms": 0.05},
        ]
    return record


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
    (folder / "student" / "network.json").write_text("{}")
    (folder / "evaluation.json").write_text(json.dumps(files.get("evaluation", evaluation())))
    write_predictions(folder, files.get("answers", answers()))
    if bundle:
        write(folder / "bundle-arm64", small_model())
    records = files.get("benchmarks", [benchmark(), rich_benchmark(), device_benchmark(), emulated_benchmark()])
    (folder / "bench.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
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
    (folder / "environment.json").write_text(json.dumps(environment | {"time": "2026-01-02T03:04:05Z"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
