"""What strangers wrote is printed as text and nothing else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf_deploy.text import printable


@given(st.text(st.characters()))
def test_any_text_becomes_one_line_that_utf_8_can_hold(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() and len(shown.splitlines()) <= 1
    shown.encode()  # raises where it cannot


@given(st.text(st.characters(categories=("L", "N", "P"))))
def test_letters_of_every_script_stay(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", r"two\nlines"),
        ("\x1b[2Jclear", r"\x1b[2Jclear"),
        ("right\u202eleft", r"right\u202eleft"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\udce9.png"),
    ],
)
def test_what_would_do_something_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
