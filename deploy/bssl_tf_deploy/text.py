"""Words of others: file names, labels, what a model or a device states about itself."""

from __future__ import annotations


def printable(value: object) -> str:
    """Text in one line that every output takes: what would steer a terminal, break a line or turn its direction, and
    bytes of file names that are not UTF-8, become their backslash escapes.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
