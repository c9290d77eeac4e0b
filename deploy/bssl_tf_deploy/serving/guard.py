"""Who may ask at all, before a body is read: by host, origin and token; and the headers of every response."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bssl_tf_deploy.errors import UsageError
from bssl_tf_deploy.serving.refusal import RefusedError

PAGE = "/"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::\d+)?")
# Of a request that was answered before all of it came, how long the rest is still received, seconds.
_DRAIN_S = 2.0
_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_POLICY = "default-src 'none'; frame-ancestors 'none'"


class Guard:
    """ASGI in front of the application.

    Args:
        app: what answers.
        token: what clients have to show for all but the page, which holds nothing; None for none.
        hosts: what a request may call this machine, without a port; None for anything. A page of a stranger, whose name
            leads here since its second look-up (DNS rebinding), calls it by that name.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: frozenset[str] | None) -> None:
        self._app, self._hosts = app, hosts
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or refuses one request."""
        headers = Headers(scope=scope)
        unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(raw=message["headers"])
                for name, value in {**_HEADERS, "content-security-policy": _POLICY}.items():
                    added.setdefault(name, value)
                if unread:
                    added["connection"] = "close"
            elif unread and not message.get("more_body", False):
                # Complete for the client, by its length; but a connection that is closed on what nobody has read is
                # reset, and a client that still sends would not see the response.
                await send({**message, "more_body": True})
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(_drain(receive), _DRAIN_S)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            self._check(scope["path"], headers)
        except RefusedError as error:
            await error.response()(scope, received, sent)
        else:
            await self._app(scope, received, sent)

    def _check(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        named = _HOST.fullmatch(host)
        if self._hosts is not None and (named is None or named[1] not in self._hosts):
            error = UsageError("the request is for another host", f"Use {' or '.join(sorted(self._hosts))}")
            raise RefusedError(400, error)
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host:
            raise RefusedError(
                403, UsageError("the request comes from a page of another site", "Use the page of this server")
            )
        if path == PAGE or self._token is None:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._token):
            error = UsageError("the token is missing or wrong", "Send the header `Authorization: Bearer TOKEN`")
            raise RefusedError(401, error, {"www-authenticate": "Bearer"})


async def _drain(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
        pass
