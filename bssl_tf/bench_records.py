"""Files of benchmark records: a line of JSON each, every one of them a `bssl_tf_deploy.record.Record`."""

from __future__ import annotations

from pathlib import Path

from bssl_tf.errors import RunFolderError
from bssl_tf.files import MAX_RECORDS_BYTES, append_record, parse_json, read_regular
from bssl_tf_deploy.record import Record
from bssl_tf_deploy.strict import StrictError
from bssl_tf_deploy.system_errors import next_step

_MAKE_AGAIN = "Remove that line, or make it again with the command in it"
# Each is checked, which for more would take ten seconds.
_MAX_RECORDS = 5_000


def append_benchmarks(path: Path, *records: Record) -> None:
    """Appends records, a line each. Raises `StorageError`."""
    append_record(path, *(record.to_dict() for record in records))


def read_benchmarks(path: Path) -> list[Record]:
    """All records of a file; none where there is no file.

    Raises:
        RunFolderError: a line is not a record.
    """
    records, faults = parse_benchmarks(path)
    if faults:
        raise RunFolderError(faults[0], _MAKE_AGAIN)
    return records


def parse_benchmarks(path: Path) -> tuple[list[Record], list[str]]:
    """All records of a file, and what is wrong with its other lines, a sentence each without a full stop.

    The last line of a file without a line break at its end was cut by a process that was killed, and is not a fault.

    Raises:
        RunFolderError: the file cannot be read.
    """
    records: list[Record] = []
    faults: list[str] = []
    if not path.exists():
        return records, faults
    try:
        text = read_regular(path, MAX_RECORDS_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
    *lines, _ = text.split("\n")
    if len(lines) > _MAX_RECORDS:
        raise RunFolderError(
            f"{path} has {len(lines):,} lines, more than {_MAX_RECORDS:,}", "Split it into several files"
        )
    for number, line in enumerate(lines, start=1):
        try:
            records.append(Record.from_dict(parse_json(line)))
        except (ValueError, RecursionError):
            faults.append(f"line {number} in {path} is not JSON")
        except StrictError as error:
            faults.append(f"line {number} in {path} is not a benchmark record: {error}")
    return records, faults


def keep_benchmark(record: Record, file: Path | None, bundle: Path, name: str) -> None:
    """Appends a record to `file`, or with None to the file `name` of the run folder that the bundle lies in, if any."""
    run = bundle.resolve().parent
    # Not in the zoo, which is the package's.
    if file is None and (run / "config.toml").exists() and not (run / "entry.json").exists():
        file = run / name
    if file is not None:
        append_benchmarks(file, record)
