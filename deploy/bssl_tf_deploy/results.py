"""Answers as text: for people, as JSON, and as CSV. One item at a time, so that any number of them needs no memory."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf_deploy.errors import ImageError
from bssl_tf_deploy.manifest import Manifest
from bssl_tf_deploy.sources import Item
from bssl_tf_deploy.tasks.task import Task
from bssl_tf_deploy.text import printable, spreadsheet_cell

FORMATS = ("table", "json", "jsonl", "csv")
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Asked:
    """What is to be said of each image.

    Attributes:
        top: how many parts an answer may have: classes, boxes.
        outputs: say the network's outputs instead of answers.
    """

    top: int
    outputs: bool


class Format(ABC):
    """Turns items into text; a single object of it serves one run.

    Args:
        task: of the bundle.
        manifest: of the bundle.
        asked: what is to be said.
    """

    def __init__(self, task: Task, manifest: Manifest, asked: Asked) -> None:
        self._task, self._manifest, self._asked = task, manifest, asked

    def head(self) -> str:
        """What comes before all items."""
        return ""

    @abstractmethod
    def answer(self, item: Item, answer: Any, outputs: Outputs) -> str:
        """Of an image that was answered."""

    def error(self, item: Item, error: ImageError) -> str:
        """Of an image that cannot be read; it is reported on stderr too."""
        return ""

    def tail(self) -> str:
        """What comes after all items."""
        return ""

    def said(self, line: str) -> tuple[dict[str, Any], bool] | None:
        """What `line`, without its end, says: `place` of the item, and whether it was answered; None if damaged."""
        raise NotImplementedError(f"{type(self).__name__} is not continued")

    def place(self, item: Item) -> dict[str, Any]:
        """What names an item in this format."""
        frame = {} if item.frame is None else {"frame": item.frame, "seconds": item.seconds}
        return {"image": item.name, **frame}

    def _record(self, item: Item, answer: Any, outputs: Outputs) -> dict[str, Any]:
        if self._asked.outputs:
            return {**self.place(item), "outputs": {name: array.tolist() for name, array in outputs.items()}}
        return {**self.place(item), **self._task.record(answer)}


class Table(Format):
    """Lines for people: the name, and a part of the answer on each."""

    def answer(self, item: Item, answer: Any, outputs: Outputs) -> str:
        if self._asked.outputs:
            lines = [_numbers(name, array, alone=len(outputs) == 1) for name, array in outputs.items()]
        else:
            lines = list(self._task.lines(answer))
        name = item.name if item.frame is None else f"{item.name} frame {item.frame}"
        return "".join(f"{printable(name)}  {printable(line)}\n" for line in lines)


class JsonLines(Format):
    """A JSON object on each line."""

    def answer(self, item: Item, answer: Any, outputs: Outputs) -> str:
        return json.dumps(self._record(item, answer, outputs)) + "\n"

    def error(self, item: Item, error: ImageError) -> str:
        return json.dumps({**self.place(item), "error": str(error)}) + "\n"

    def said(self, line: str) -> tuple[dict[str, Any], bool] | None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(record, dict) or "image" not in record:
            return None
        return {key: record[key] for key in ("image", "frame", "seconds") if key in record}, "error" not in record


class JsonList(Format):
    """One JSON list of all."""

    _between = "[\n"

    def answer(self, item: Item, answer: Any, outputs: Outputs) -> str:
        return self._next(self._record(item, answer, outputs))

    def error(self, item: Item, error: ImageError) -> str:
        return self._next({**self.place(item), "error": str(error)})

    def tail(self) -> str:
        return "[]\n" if self._between == "[\n" else "\n]\n"

    def _next(self, record: dict[str, Any]) -> str:
        between, self._between = self._between, ",\n"
        return between + textwrap.indent(json.dumps(record, indent=2), "  ")


class Csv(Format):
    """A row for each item, on one line each: what would break a line, or a spreadsheet would run, is escaped.

    Args:
        frames: whether items are frames, which have two more columns.
    """

    def __init__(self, task: Task, manifest: Manifest, asked: Asked, *, frames: bool) -> None:
        super().__init__(task, manifest, asked)
        self._places = ("image", "frame", "seconds") if frames else ("image",)
        if asked.outputs:
            sizes = {about.name: int(np.prod(about.shape)) for about in manifest.outputs}
            self._columns = [f"{name}_{number}" for name, size in sizes.items() for number in range(size)]
        else:
            self._columns = list(task.columns(manifest, asked.top))

    def head(self) -> str:
        return _row([*self._places, "error", *self._columns])

    def place(self, item: Item) -> dict[str, Any]:
        return {key: _cell(value) for key, value in super().place(item).items()}

    def answer(self, item: Item, answer: Any, outputs: Outputs) -> str:
        if self._asked.outputs:
            cells: Sequence[Any] = [float(value) for array in outputs.values() for value in array.ravel()]
        else:
            cells = self._task.cells(answer)
        return _row([*super().place(item).values(), "", *cells, *[""] * (len(self._columns) - len(cells))])

    def error(self, item: Item, error: ImageError) -> str:
        return _row([*super().place(item).values(), str(error), *[""] * len(self._columns)])

    def said(self, line: str) -> tuple[dict[str, Any], bool] | None:
        try:
            [cells] = csv.reader([line], strict=True)
        except (csv.Error, ValueError):
            return None
        if len(cells) != len(self._places) + 1 + len(self._columns):
            return None
        return dict(zip(self._places, cells, strict=False)), not cells[len(self._places)]


def make_format(name: str, task: Task, manifest: Manifest, asked: Asked, *, frames: bool) -> Format:
    """The format called `name`, one of `FORMATS`, of a run whose items are `frames` or files."""
    if name == "csv":
        return Csv(task, manifest, asked, frames=frames)
    kinds: dict[str, type[Format]] = {"table": Table, "json": JsonList, "jsonl": JsonLines}
    return kinds[name](task, manifest, asked)


def _numbers(name: str, array: np.ndarray, *, alone: bool) -> str:
    numbers = " ".join(f"{value:.6g}" for value in array.ravel())
    return numbers if alone else f"{name}  {numbers}"


def _row(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(_cell, cells))
    return text.getvalue()


def _cell(value: str | float) -> str:
    return spreadsheet_cell(value) if isinstance(value, str) else str(value)
