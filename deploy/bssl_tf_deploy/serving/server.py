"""Listens, and ends by signals as every command does."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from dataclasses import dataclass

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from bssl_tf_deploy.errors import ServerError
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.serving.application import Application
from bssl_tf_deploy.serving.guard import LOOPBACK_NAMES, Guard
from bssl_tf_deploy.serving.settings import ServeSettings
from bssl_tf_deploy.text import flush, show

# More are refused by uvicorn itself, so that idle ones do not take all that the system allows.
_MOST_CONNECTIONS = 64
_MOST_HEAD_BYTES = 16384
_GRACE_S = 5


@dataclass(frozen=True)
class Listening:
    """A server that is about to run.

    Attributes:
        server: uvicorn's.
        listener: its socket.
        url: of its page.
        new_token: the token if it was made here, and nobody knows it yet.
    """

    server: Server
    listener: socket.socket
    url: str
    new_token: str | None


def serve(predictor: Predictor, settings: ServeSettings) -> None:
    """Answers images over HTTP until a signal comes.

    Args:
        predictor: checked against its golden outputs.
        settings: checked.

    Raises:
        KeyboardInterrupt: Ctrl-C; connections have ended. SIGTERM ends the process then as it would without a server.
        ServerError: it cannot listen there.
    """
    made = listen(predictor, settings)
    show(f"{predictor.bundle.path} at {made.url}; Ctrl-C ends the server")
    if made.new_token is not None:
        show(f"token: {made.new_token}", "It is new at each start: keep one with --token-file FILE or BSSL_TF_TOKEN.")
    flush()
    made.server.run([made.listener])


def listen(predictor: Predictor, settings: ServeSettings) -> Listening:
    """A server with its socket; `server.run([listener])` runs it. See `serve`."""
    listener = _socket(settings.host, settings.port)
    address, port = listener.getsockname()[:2]
    loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    token, new_token = settings.token(), None
    if token is None and not loopback:
        token = new_token = secrets.token_urlsafe(24)
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    hosts = LOOPBACK_NAMES | {name.lower()} if loopback else None
    application = Application(predictor, settings)
    protocol = type("Protocol", (_Deadlines,), {"head_s": settings.timeout_s})
    config = Config(
        Guard(application.routes(), token, hosts),
        http=protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return Listening(Server(config), listener, f"http://{name}:{port}/", new_token)


def _socket(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
        # Its connections inherit this. asyncio sets it for sockets alone that it made itself, and without it the second
        # packet of a response waits for the acknowledgement of the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, UnicodeError) as error:  # UnicodeError: not a name at all.
        cause = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ServerError(
            f"cannot listen at {host}, port {port} ({cause})",
            "Choose an address of this machine with --host, or a free port with --port",
        ) from error


class _Deadlines(H11Protocol):
    """uvicorn's, which would wait for ever for a first request, and for the rest of one of which a byte is there."""

    head_s: float
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_s, self.timeout_keep_alive_handler)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
