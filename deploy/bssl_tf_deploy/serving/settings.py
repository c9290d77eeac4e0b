"""What the server is started with. Imported before the framework, whose absence it reports."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bssl_tf_deploy.errors import RuntimeUnavailableError, UsageError
from bssl_tf_deploy.files import read_regular, storage_errors

TOKEN_VARIABLE = "BSSL_TF_TOKEN"
# What a header `Authorization: Bearer` may hold (RFC 6750, 2.1), and no fewer characters than cannot be guessed.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")
_MAX_TOKEN_FILE_BYTES = 4096
_FRAMEWORK = ("starlette", "uvicorn", "python_multipart")


@dataclass(frozen=True)
class ServeSettings:
    """Where to listen, and what a client may take.

    Attributes:
        host: a name or address of this machine; other machines reach 0.0.0.0 or its own address.
        port: 0 for any that is free.
        token_file: a file that holds the token; None for the environment variable's, if there is one.
        top: how many parts an answer may have, classes or boxes; None for the task's usual number.
        max_mb: the largest upload, 10^6 bytes; nothing beyond it is read.
        queue: how many uploads may be received, wait or be answered at a time; each takes at most `max_mb`.
        timeout_s: how long a client may take to send the head of a request, and again to send an upload, seconds.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    top: int | None = None
    max_mb: int = 16
    queue: int = 8
    timeout_s: float = 30.0

    def check(self) -> None:
        """What can be known before a bundle is read.

        Raises:
            RuntimeUnavailableError: the framework is not installed.
            StorageError: the token's file cannot be read.
            UsageError: a number is out of its range, or the token is not one.
        """
        ranges = {
            "--port": (self.port, 0, 65535),
            "--top": (1 if self.top is None else self.top, 1, 10**9),
            "--max-mb": (self.max_mb, 1, 1000),
            "--queue": (self.queue, 1, 64),
            "--timeout": (self.timeout_s, 0.1, 3600),
        }
        for option, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise UsageError(f"{option} {value} is not from {low} to {high}", "Choose a number in this range")
        for name in _FRAMEWORK:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise RuntimeUnavailableError(
                    f"the HTTP server cannot be loaded ({error})",
                    "Install it with `pip install 'bssl-tf-deploy[serve]'`",
                ) from error
        self.token()

    def token(self) -> str | None:
        """What clients have to show; None where none was given. Raises as `check` does."""
        source = f"the environment variable {TOKEN_VARIABLE}" if self.token_file is None else str(self.token_file)
        if self.token_file is None:
            text = os.environ.get(TOKEN_VARIABLE, "")
            if not text:
                return None
        else:
            with storage_errors(self.token_file):
                text = read_regular(self.token_file, _MAX_TOKEN_FILE_BYTES).decode("utf-8", "replace").strip()
        # The message does not repeat it.
        if not _TOKEN.fullmatch(text):
            raise UsageError(
                f"the token in {source} is not 16 to 512 letters, digits and -._~+/", "Make one: `openssl rand -hex 24`"
            )
        return text
