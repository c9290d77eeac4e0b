"""Values that several words on a command line may stand for."""

from __future__ import annotations

from typing import Any

import click

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


class Target(click.Choice):
    """A target; those of 32-bit ARM are refused with the reason."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The target's name."""
        refuse_32_bit(value)
        return super().convert(value, param, ctx)
