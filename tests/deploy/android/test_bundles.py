"""The library for Android reads a bundle, and refuses what Python refuses, in one line."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bssl_tf_deploy.bundle import MANIFEST, MODEL, read_bundle
from bssl_tf_deploy.errors import BundleError
from bssl_tf_deploy.files import CHECKSUM, EDITED
from tests.deploy import bundles
from tests.java import block, edited, run_cases, take_text, text

# Written over what the manifest says, with the word that lets an edited manifest through: each a contradiction.
CHANGES: list[tuple[list[str | int], Any]] = [
    (["format"], 3),
    (["format"], 4.0),
    (["task"], 5),
    (["surplus"], 1),
    (["files", MODEL, "bytes"], 4),
    (["files", MODEL, "bytes"], 2**40),
    (["files", MODEL, "sha256"], "0" * 63),
    (["files", MODEL, "sha256"], "0" * 64),
    (["preprocessing", "height"], 7),
    (["preprocessing", "width"], True),
    (["preprocessing", "channels"], 2),
    (["preprocessing", "mean"], [0.5]),
    (["preprocessing", "std"], [0.5, 0.0, 0.5]),
    (["preprocessing", "std"], [0.5, "1", 0.5]),
    (["inputs"], []),
    (["inputs", 0, "shape"], [1, 8, 9, 3]),
    (["inputs", 0, "shape"], [1, 8.0, 8, 3]),
    (["inputs", 0, "dtype"], "int8"),
    (["inputs", 0, "quantization"], {"scale": 1.0, "zero_point": 0}),
    (["outputs", 0, "dtype"], "uint8"),
    (["outputs", 0, "shape"], [1, 4]),
    (["table", "labels"], []),
    (["table", "labels"], ["a", 1, "b"]),
    (["table", "calibration"], {}),
    (["table", "odd"], None),
]


def run_bundles(folders: list[Path]) -> list[str]:
    """What Java says of each: task, labels and the model's size, or "!" and what is wrong."""
    results = run_cases([("bundle", text(str(folder))) for folder in folders])
    return [one.decode() if one.startswith(b"!") else take_text(io.BytesIO(one)) for one in results]


def test_a_bundle_is_read_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    sound = bundles.write(tmp_path / "sound")
    folders = [sound]

    def copy(name: str) -> Path:
        folders.append(tmp_path / name)
        return Path(shutil.copytree(sound, folders[-1]))

    # An app needs two files.
    few = copy("few")
    for path in few.rglob("*"):
        if path.is_file() and path.name not in (MANIFEST, MODEL):
            path.unlink()
    # Who edits a manifest says so.
    edited(copy("edited"), lambda content: content.update({CHECKSUM: EDITED, "commit": None}))
    good = len(folders)

    def unlisted(content: dict[str, Any]) -> None:
        del content["files"][MODEL]
        content[CHECKSUM] = EDITED

    (copy("flipped") / MODEL).write_bytes(b"nodel")
    (copy("longer") / MODEL).write_bytes(b"model ")
    (copy("shorter") / MODEL).write_bytes(b"mode")
    (copy("without") / MODEL).unlink()
    (copy("no-manifest") / MANIFEST).unlink()
    (copy("no-json") / MANIFEST).write_text('{"format": 4,')
    (copy("no-text") / MANIFEST).write_bytes(b'{"format": "\xff"}')
    (copy("no-object") / MANIFEST).write_text("[4]")
    (copy("deep") / MANIFEST).write_text("[" * 100_000)
    edited(copy("changed"), lambda content: content.update(commit="another"))
    edited(copy("no-checksum"), lambda content: content.pop(CHECKSUM))
    edited(copy("unlisted"), unlisted)
    for number, (place, value) in enumerate(CHANGES):

        def change(content: Any, place: list[str | int] = place, value: Any = value) -> None:
            content[CHECKSUM] = EDITED
            for key in place[:-1]:
                content = content[key]
            content[place[-1]] = value

        edited(copy(f"change-{number}"), change)
    answers = run_bundles(folders)
    assert answers[:good] == ["classification [cat, dog / wolf, Ä] 5"] * good
    for folder, answer in zip(folders[good:], answers[good:], strict=True):
        assert answer.startswith("!error[bundle]: ") and answer.endswith("."), (folder.name, answer)
        assert answer.isprintable(), answer
        with pytest.raises(BundleError):
            read_bundle(folder)
    # What is wrong is said where it stands.
    said = dict(zip([folder.name for folder in folders], answers, strict=True))
    assert "SHA-256 differs" in said["flipped"] and "more than 5 bytes" in said["longer"]
    assert "4 bytes instead of 5" in said["shorter"] and "was changed since" in said["changed"]
    assert "its format is 3" in said["change-0"] and "unknown key 'surplus'" in said["change-3"]


def test_json_is_written_as_python_writes_it_and_nothing_else_is_taken_for_json() -> None:
    sound = [
        {"b": [1, -0.5, 1e-7, 1e22, True, None, {}], "a": {"": []}},
        # By code points, a letter beyond the basic plane comes after every other one.
        {"\U0001f600": 1, "\uffff": 2, "é": 3, "e": 4, "E": 5, "é1": 6},
        ['"\\/\b\f\n\r\t\x00\x1f\x7f ~', "\u2028\U0001f600"],
        "text",
        [[[]]],
    ]
    odd = ["", "{", "[1,]", '{"a" 1}', "{1: 2}", "01", "-", "1.", ".5", "1e", "NaN", "Infinity", "'a'", '"\n"', '"\\x"']
    odd += ['"\\u12g4"', "true false", "nul", '{"a": 1, "a": 2}', '"a', "[1 2]", '"\\u\u0661234"']
    cases = [json.dumps(value, indent=2).encode() for value in sound]
    cases += [json.dumps(value, ensure_ascii=False).encode("utf-8") for value in sound]
    results = run_cases([("canonical", block(case)) for case in [*cases, *(one.encode() for one in odd)]])
    wanted = [json.dumps(value, sort_keys=True, separators=(",", ":")).encode() for value in sound]
    assert results[: len(cases)] == wanted * 2
    assert [one for one, result in zip(odd, results[len(cases) :], strict=True) if not result.startswith(b"!")] == []
