"""Names of classes that come close to one another: a folder `rose` beside `roses` is usually a slip."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping

# A letter more or less in four, or two in twelve; "boat" and "goat", "man" and "woman" are further apart.
_ALIKE = 0.85


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name of `known` that `name` is most likely meant to be, or None where none is close."""
    close = [(_ratio(name, other), other) for other in known if other != name and _alike(name, other)]
    return max(close)[1] if close else None


def described(name: str, count: int, known: Iterable[str]) -> str:
    """A class that `known` lacks, with its number of images and the class that was probably meant."""
    near = nearest(name, known)
    return f"{name} ({images_text(count)}{f'; did you mean {near}?' if near else ''})"


def images_text(count: int) -> str:
    """So many images, in words."""
    return "1 image" if count == 1 else f"{count} images"


def lookalikes(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of classes that are probably one, the one with fewer images first.

    Args:
        counts: images of each class, by its name.
    """
    pairs = [pair for pair in itertools.combinations(sorted(counts), 2) if _alike(*pair)]
    return [(one, other) if counts[one] <= counts[other] else (other, one) for one, other in pairs]


def _alike(one: str, other: str) -> bool:
    one, other = _plain(one), _plain(other)
    # Numbers tell classes apart: class 1 and class 11 are no slip. The letters alone rule out most pairs, quickly.
    if re.findall(r"\d+", one) != re.findall(r"\d+", other) or len(set(one) ^ set(other)) > 3:
        return False
    return _ratio(one, other) >= _ALIKE


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, _plain(one), _plain(other), autojunk=False).ratio()


def _plain(name: str) -> str:
    """Without the differences that nobody means: case, and what stands between words."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
