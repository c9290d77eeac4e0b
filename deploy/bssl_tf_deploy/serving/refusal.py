"""How a request ends that is not answered: a status, and JSON with the line that a command would print."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from bssl_tf_deploy.errors import BsslError

JSON = "application/json"


class RefusedError(Exception):
    """A request is not answered.

    Args:
        status: of HTTP.
        error: why, and what to do.
        headers: to be sent too.
    """

    def __init__(self, status: int, error: BsslError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(error))
        self.status, self.error, self.headers = status, error, headers

    def response(self) -> Response:
        """What the client gets."""
        body = json.dumps({"error": str(self.error)}) + "\n"
        return Response(body, self.status, dict(self.headers or {}), JSON)
