"""What a person reads of a .tflite model's inspection: aligned columns, and the totals below."""

from __future__ import annotations

import textwrap

from bssl_tf_converters.tflite.inspection import Inspection, OperatorInfo, TensorInfo
from bssl_tf_deploy.text import printable

WIDTH = 120
_GAP = "  "
# Inputs, and outputs.
_SHOWN = 16
# A space at which no line is broken.
_JOINT = "\N{NO-BREAK SPACE}"
_HEADER = ("#", "operator", "layer", "output", "MACs", "weights", "alive")
_TO_THE_LEFT = ("operator", "layer", "output")
_LONGEST = {"operator": 26, "output": 32}


def table(file: str, found: Inspection) -> list[str]:
    """The lines that a person reads, `WIDTH` columns wide unless the file's own name is wider."""
    lines = [f"{printable(file)}: {_bytes(found.file_bytes)}, {_operators(len(found.operators))}"]
    for role, tensors in (("input", found.inputs), ("output", found.outputs)):
        lines += [_cut(f"{role:6}  {_form(one)}  {printable(one.name)}", WIDTH) for one in tensors[:_SHOWN]]
        if len(tensors) > _SHOWN:
            lines.append(f"{role:6}  and {len(tensors) - _SHOWN} more")
    lines += ["", *_rows(found.operators), ""]
    facts = [
        ("MACs", _macs(found)),
        ("weights", _kinds({kind: _bytes(size) for kind, size in found.weight_bytes.items() if size})),
        ("memory", _memory(found)),
        ("operators", ", ".join(_by_number(found.histogram))),
    ]
    if found.unknown_macs:
        facts.append(("note", f"the MACs of {_operators(found.unknown_macs)}, marked ?, are not known and not counted"))
    if found.graphs > 1:
        facts.append(("note", f"the file has {found.graphs} graphs; everything above is for the first"))
    if found.dynamic:
        facts.append(("note", "sizes marked ? are known only when it runs, and count as 1 above"))
    for name, fact in facts:
        wrapped = textwrap.wrap(f"{name:11}{fact}", WIDTH, subsequent_indent=" " * 11)
        lines += [line.replace(_JOINT, " ") for line in wrapped]
    return lines


def _rows(operators: tuple[OperatorInfo, ...]) -> list[str]:
    """Aligned columns; the layer's has what the others leave."""
    cells = [dict(zip(_HEADER, _HEADER, strict=True)), *map(_cells, operators)]
    widths = {name: max(len(row[name]) for row in cells) for name in _HEADER}
    for name, longest in _LONGEST.items():
        widths[name] = min(widths[name], longest)
    others = sum(width + len(_GAP) for name, width in widths.items() if name != "layer")
    widths["layer"] = min(widths["layer"], WIDTH - others)
    lines = []
    for row in cells:
        fitted = [
            f"{_cut(row[name], width):{'<' if name in _TO_THE_LEFT else '>'}{width}}" for name, width in widths.items()
        ]
        lines.append(_GAP.join(fitted))
    return lines


def _cells(one: OperatorInfo) -> dict[str, str]:
    more = f" +{len(one.outputs) - 1}" if len(one.outputs) > 1 else ""
    macs = "?" if one.macs is None else f"{_count(one.macs)} {one.arithmetic}" if one.macs else "-"
    weights = sum(one.weight_bytes.values())
    return {
        "#": str(one.index),
        "operator": printable(one.operator),
        "layer": printable(one.layer),
        "output": _form(one.outputs[0]) + more if one.outputs else "-",
        "MACs": macs,
        "weights": _bytes(weights) if weights else "-",
        "alive": _bytes(one.alive_bytes),
    }


def _macs(found: Inspection) -> str:
    amounts = {kind: _count(macs) for kind, macs in found.macs.items() if macs}
    if found.unknown_macs:
        return f"at least {_kinds(amounts)}" if amounts else "not known"
    return _kinds(amounts)


def _memory(found: Inspection) -> str:
    if found.peak_operator is None:
        return "no operator runs"
    least = "at least " if found.unknown_sizes else ""
    name = printable(found.operators[found.peak_operator].operator)
    return (
        f"{least}{_bytes(found.peak_bytes)} of activations at the peak, operator {found.peak_operator} ({name}); "
        "scratch memory and the interpreter are extra"
    )


def _by_number(histogram: dict[str, int]) -> list[str]:
    ordered = sorted(histogram.items(), key=lambda item: (-item[1], item[0]))
    return [f"{count}{_JOINT}{_cut(printable(name), 60)}" for name, count in ordered]


def _operators(count: int) -> str:
    return f"{count} operator{'' if count == 1 else 's'}"


def _kinds(amounts: dict[str, str]) -> str:
    return ", ".join(f"{amount} {kind}" for kind, amount in amounts.items()) or "none"


def _form(tensor: TensorInfo) -> str:
    """Such as 1x8x8x32 float32."""
    shape = "x".join("?" if size < 0 else str(size) for size in tensor.shape)
    return f"{shape} {tensor.dtype}" if shape else tensor.dtype


def _count(number: int) -> str:
    return _scaled(number, 1000, ("", " k", " M", " G", " T"))


def _bytes(number: int) -> str:
    return _scaled(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(number: int, base: int, units: tuple[str, ...]) -> str:
    """Three digits and the unit with which they are below 1000."""
    scaled = float(number)
    for unit in units[:-1]:
        if scaled < 999.5:
            return f"{scaled:.3g}{unit}"
        scaled /= base
    return f"{scaled:.3g}{units[-1]}"


def _cut(text: str, width: int) -> str:
    """At most `width` characters: where there are more, the first and the last, which tell layers apart."""
    if len(text) <= width:
        return text
    head = (width - 2) // 2
    return f"{text[:head]}..{text[len(text) - (width - 2 - head) :]}"
