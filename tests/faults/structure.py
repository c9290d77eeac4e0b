"""Files of JSON and TOML that are whole and say odd things, as a stranger writes them, with the right checksum."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from bssl_tf_deploy.files import CHECKSUM, with_checksum

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIXES = (".json", ".jsonl", ".toml")
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**18, 10**400, 0.5, 1e-320, -1e308, float("inf"), float("nan")),
    *("", "x", "x" * 5000, "../../x", "/dev/zero", "tfds:x", "a\x1b[2J\nb\u202e", "$\\frac$", "\ud800", "caf\xe9"),
    *([], {}, [[]], [None], {"": {}}, {"x": [{}]}, [1.5, "x"], list(range(2000))),
)


def change(file: Path, rng: np.random.Generator) -> bool:
    """Changes what the file says in one to three places; whether it is of JSON or TOML at all."""
    if file.suffix not in SUFFIXES:
        return False
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".toml":
        content = _for_toml(changed(tomllib.loads(text), rng))
        file.write_text(tomli_w.dumps(content if isinstance(content, dict) else {"x": content}), encoding="utf-8")
        return True
    if file.suffix == ".json":
        file.write_text(json.dumps(_signed(changed(json.loads(text), rng))), encoding="utf-8")
        return True
    lines = text.splitlines()
    if lines:
        place = int(rng.integers(len(lines)))
        lines[place] = json.dumps(changed(json.loads(lines[place]), rng))
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return True


def changed(content: Any, rng: np.random.Generator) -> Any:
    """A copy with values replaced, removed, renamed, exchanged or wrapped."""
    root = {"": copy.deepcopy(content)}
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(root))
        inside, key = places[int(rng.integers(len(places)))]
        action = int(rng.integers(8))
        if action < 4 or inside is root:
            inside[key] = copy.deepcopy(_ODD[int(rng.integers(len(_ODD)))])
        elif action == 4:
            del inside[key]
        elif action == 5:
            inside[key] = [inside[key]]
        elif action == 6:
            other, name = places[int(rng.integers(len(places)))]
            inside[key] = copy.deepcopy(other[name])
        elif isinstance(inside, dict):
            inside[f"{key}{_ODD[int(rng.integers(len(_ODD)))]}"[:6000]] = inside.pop(key)
        else:
            inside.insert(key, copy.deepcopy(inside[key]))
    return root[""]


def _places(inside: Any) -> Any:
    """Every value in lists and objects, by what it is in and its key there."""
    for key in list(inside) if isinstance(inside, dict) else range(len(inside)):
        yield inside, key
        if isinstance(inside[key], (dict, list)):
            yield from _places(inside[key])


def _signed(content: Any) -> Any:
    if not isinstance(content, dict) or CHECKSUM not in content:
        return content
    return with_checksum({key: value for key, value in content.items() if key != CHECKSUM})


def _for_toml(content: Any) -> Any:
    """TOML has tables at its top, no null and no lone surrogates."""
    if isinstance(content, dict):
        return {str(_for_toml(key)): _for_toml(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_for_toml(one) for one in content]
    if isinstance(content, str):
        return content.encode("utf-8", "replace").decode("utf-8")
    return "" if content is None else content
