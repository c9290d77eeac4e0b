"""Values that several words on a command line may stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bssl_tf.errors import ConfigError
from bssl_tf_deploy.library import refuse_32_bit


class Numbers(click.ParamType):
    """Numbers separated by commas, such as 0.485,0.456,0.406."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """A tuple of them."""
        try:
            return value if isinstance(value, tuple) else tuple(float(word) for word in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers separated by commas, as in 0.485,0.456,0.406", param, ctx)


def named(option: str, texts: Sequence[str], example: str) -> dict[str, Path]:
    """Paths by name, of an option that may be repeated: NAME=PATH each.

    Raises:
        ConfigError: one is not of this form, or a name is given twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise ConfigError(f"{option} {text!r} is not NAME={example}", f"Write {option} mine={example}")
        if name in found:
            raise ConfigError(f"{option} has the name {name!r} twice", "Give each another name")
        found[name] = Path(path)
    return found


class Target(click.Choice):
    """A target; those of 32-bit ARM are refused with the reason."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The target's name."""
        refuse_32_bit(value)
        return super().convert(value, param, ctx)
