"""Nested tables as in TOML: reading, merging, comparing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bssl_tf.errors import ConfigError
from bssl_tf.files import read_regular
from bssl_tf_deploy.system_errors import next_step

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Far more than any settings need.
_MAX_BYTES = 1 << 20


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested tables of `base` with those of `over` laid on top; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def differences(old: dict[str, Any], new: dict[str, Any], where: str = "") -> dict[str, tuple[Any, Any]]:
    """The settings in the tables `new` that differ from those in `old`, the whole tables of a run.

    Returns:
        By dotted name the old value, None where there is none, and the new one.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for key, value in new.items():
        current, name = old.get(key), f"{where}{key}"
        if isinstance(value, dict) and isinstance(current, dict):
            found |= differences(current, value, f"{name}.")
        elif value != current:
            found[name] = (current, value)
    return found


def first_difference(found: dict[str, tuple[Any, Any]]) -> str:
    """The first of some `differences` as a clause."""
    name, (old, new) = next(iter(found.items()))
    return f"{name} is {'not' if old is None else repr(old)} there and {new!r} here"


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file. Raises `ConfigError` when it is missing, cannot be read, or is not TOML."""
    try:
        return tomllib.loads(read_regular(path, _MAX_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing", "Check the path") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML ({error})", "Fix the file, or remove it") from error
