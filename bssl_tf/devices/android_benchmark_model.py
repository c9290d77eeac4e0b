"""Models on a phone through TensorFlow Lite's own `benchmark_model`.

`benchmark_model` (prebuilt by Google for android_aarch64) loads our library as an external delegate, reads an input,
writes the outputs (`--output_filepath`), and times. A version that writes no outputs is refused: what is not known to
be right is not timed.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bssl_tf.devices.operator_profile import profile, profile_options
from bssl_tf.devices.phone import PhoneFolder, model_file, verify_outputs
from bssl_tf.errors import DeviceError, RuntimeUnavailableError
from bssl_tf_deploy.bench import subject_of
from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.files import read_regular
from bssl_tf_deploy.library import LIBRARY
from bssl_tf_deploy.manifest import MAX_FILE_BYTES
from bssl_tf_deploy.record import BINARY, Golden, Latency, Machine, Network, Profile, Record, Run, Start, now

_ROUNDS = 3
_TEXT = re.compile(r"count=\d+ first=\S+ curr=\S+ min=(?P<min>\S+) max=\S+ avg=(?P<avg>\S+) std=\S+")
_MEDIAN = re.compile(r" p5=\S+ median=(?P<median>\S+) p95=(?P<p95>\S+)")
_START = re.compile(r"Inference timings in us: Init: (?P<init>[^,]+), First inference: (?P<first>[^,]+),")
_MEMORY = re.compile(r"Memory footprint delta from the start of the tool \(MB\): init=\S+ overall=(?P<overall>\S+)")


class BenchmarkModel:
    """A way to run models on a phone; see `bssl_tf.devices.phone.Way`.

    Args:
        file: the program.

    Raises:
        DeviceError: it cannot be read.
    """

    program = "benchmark_model"

    def __init__(self, file: Path) -> None:
        try:
            self.files = {self.program: read_regular(file, MAX_FILE_BYTES)}
        except OSError as error:
            raise DeviceError(
                f"{file} cannot be read ({error.strerror})",
                "Download Google's prebuilt android_aarch64 benchmark_model and name it with --benchmark-model",
            ) from error

    def verify(self, phone: PhoneFolder, bundle: Bundle, threads: int) -> None:
        about = bundle.manifest.inputs[0]
        name, shape = about.name, ",".join(map(str, about.shape))
        outputs = []
        for image in bundle.golden_inputs[0]:
            phone.push(image.tobytes(), "input")
            given = [f"--input_layer={name}", f"--input_layer_shape={shape}"]
            given += [f"--input_layer_value_files={name}:{phone.path('input')}"]
            given += [f"--output_filepath={phone.path('output')}"]
            given += ["--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0"]
            self._run(phone, BINARY, threads, *given)
            try:
                outputs.append(phone.pull("output"))
            except (DeviceError, OSError) as error:
                raise RuntimeUnavailableError(
                    "this benchmark_model writes no outputs, so they cannot be checked",
                    "Use a newer version, one with --output_filepath",
                ) from error
            phone.connection.shell("rm", "-f", phone.path("output"))
        verify_outputs(bundle, b"".join(outputs))

    def measure(
        self,
        phone: PhoneFolder,
        bundle: Bundle,
        models: Mapping[str, bytes],
        threads: Sequence[int],
        budget_s: float,
        machine: Machine,
    ) -> Record:
        """For each network the figures that `benchmark_model` gives: medians over three processes, interleaved with the
        other networks', with what it printed; and a profile of the bundle's."""
        began, runs = now(), []
        for count in threads:
            printed: dict[str, list[str]] = {name: [] for name in models}
            for _ in range(_ROUNDS):
                for name, texts in printed.items():
                    texts.append(self._run(phone, name, count))
            networks = {
                name: _network(name, len(models[name]), figures(texts), texts) for name, texts in printed.items()
            }
            runs.append(Run(count, networks, (self._profile(phone, count),)))
        return Record(
            command=None,
            commit=None,
            time=began,
            machine=machine,
            versions={},
            subject=subject_of(bundle),
            golden=Golden(bundle.golden_images, tuple(threads)),
            runs=tuple(runs),
        )

    def _run(self, phone: PhoneFolder, network: str, threads: int, *more: str) -> str:
        """What `benchmark_model` printed. Raises `RuntimeUnavailableError` where it fails."""
        model = model_file(network)
        command = [phone.path(self.program), f"--graph={phone.path(model)}", f"--num_threads={threads}"]
        if network == BINARY:
            command.append(f"--external_delegate_path={phone.path(LIBRARY)}")
            command.append(f"--external_delegate_options=num_threads:{threads}")
        status, out = phone.connection.shell(*command, *more)
        if status != 0:
            last = (out.strip().splitlines() or [f"exit status {status}"])[-1]
            raise RuntimeUnavailableError(
                f"benchmark_model on {phone.connection.address} does not run {model} ({last[:200]})",
                "Export the bundle for android-arm64 again, or use another benchmark_model",
            )
        return out

    def _profile(self, phone: PhoneFolder, threads: int) -> Profile:
        file = phone.path("operators.csv")
        self._run(phone, BINARY, threads, *profile_options(file))
        status, out = phone.connection.shell("cat", file)
        return profile(out if status == 0 else "")


def _network(name: str, size: int, found: Mapping[str, float], printed: Sequence[str]) -> Network:
    rest = "XNNPACK in benchmark_model"
    return Network(
        role="subject" if name == BINARY else "beside",
        kernel=f"bssl-tf runtime, the rest {rest}" if name == BINARY else rest,
        model_size_bytes=size,
        latency=Latency(
            p50_ms=found.get("p50_ms"),
            calls=None,
            min_ms=found["min_ms"],
            p95_ms=found.get("p95_ms"),
            mean_ms=found["mean_ms"],
        ),
        start=Start(load_ms=found["load_ms"], first_ms=found["first_ms"], added_memory_mib=found.get("memory_mib")),
        printed=tuple(printed),
    )


def figures(texts: Sequence[str]) -> dict[str, float]:
    """Figures in milliseconds of what several runs of `benchmark_model` printed; medians over the runs.

    Raises:
        DeviceError: one of them printed no times.
    """
    rows = []
    for text in texts:
        # The first such line is of the warm-up.
        lines = [line for line in text.splitlines() if _TEXT.search(line)]
        start = _START.search(text)
        if not lines or start is None:
            raise DeviceError("benchmark_model printed no times", "Use another version")
        timed, median, memory = _TEXT.search(lines[-1]), _MEDIAN.search(lines[-1]), _MEMORY.search(text)
        assert timed is not None
        row = {"load_ms": start["init"], "first_ms": start["first"], "mean_ms": timed["avg"], "min_ms": timed["min"]}
        row |= {"p50_ms": median["median"], "p95_ms": median["p95"]} if median else {}
        try:
            figure = {key: float(value) / 1000 for key, value in row.items()}
            figure |= {"memory_mib": float(memory["overall"])} if memory else {}
        except ValueError as error:
            raise DeviceError("benchmark_model printed times that are not numbers", "Use another version") from error
        rows.append(figure)
    # Older versions print no median; what not every run has is left out.
    return {key: statistics.median(row[key] for row in rows) for key in rows[0] if all(key in row for row in rows)}
