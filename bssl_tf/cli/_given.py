"""How options and `--set` become settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bssl_tf.errors import ConfigError
from bssl_tf.methods.method import Method
from bssl_tf.methods.registry import BUILT_IN, find, over_preset
from bssl_tf.settings import merge


def collect(options: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings from options called `section__key`; those not given are left out."""
    settings: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None:
            section, _, key = name.rpartition("__")
            settings = merge(settings, {section: {key: value}} if section else {key: value})
    return settings


def settle(
    command: str, preset: str | None, assignments: tuple[str, ...], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of a run: the preset, then the options, then each `--set`.

    Raises:
        ConfigError: the preset is unknown, or a `--set` is not KEY=VALUE.
    """
    settings = merge(collect(options), assigned(assignments))
    return over_preset(command, preset, settings) if preset else settings


def assigned(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Nested settings from `--set KEY=VALUE`. Raises `ConfigError`."""
    settings: dict[str, Any] = {}
    for assignment in assignments:
        settings = merge(settings, _assigned(assignment))
    return settings


def _assigned(assignment: str) -> dict[str, Any]:
    key, equals, text = assignment.partition("=")
    if not key or not equals:
        raise ConfigError(f"--set {assignment!r} is not KEY=VALUE", "Write for example --set moco.temperature=0.1")
    value: Any = _value(text)
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def methods_help(*kinds: tuple[str, Callable[[Method[Any]], bool]]) -> str:
    """Help for --method: under each heading the methods of the package that fit, with what they are."""
    known = [find(name) for name in BUILT_IN]
    parts = [
        heading + ", ".join(f"{one.name} ({one.summary})" for one in known if fits(one)) for heading, fits in kinds
    ]
    return "; ".join([*parts, "or one provided by an installed package."])
