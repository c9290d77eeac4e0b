"""Keeps native libraries from writing to the terminal; see `bssl_tf_deploy.quiet`."""

from __future__ import annotations

from bssl_tf_deploy.quiet import LibraryOutput, captured_output, with_output

__all__ = ["LibraryOutput", "captured_output", "with_output"]
