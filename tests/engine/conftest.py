"""The same images and teacher as for methods."""

from tests.methods.conftest import inputs, teacher

__all__ = ["inputs", "teacher"]
