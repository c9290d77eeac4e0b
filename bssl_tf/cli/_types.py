"""Values that several words on a command line may stand for."""

from __future__ import annotations

from typing import Any

import click


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
    """A target; 32-bit ones, which have a longer answer than "not one of", pass through to the export."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The target's name."""
        from bssl_tf_deploy.library import TARGETS_32_BIT

        return value if value in TARGETS_32_BIT else super().convert(value, param, ctx)
