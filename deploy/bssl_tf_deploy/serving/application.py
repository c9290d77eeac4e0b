"""What the server answers: images with the JSON of `run --jsonl`, its own state, and the page.

One thread prepares and answers images, one after another; at most `queue` of them are received or wait meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import logging
import re
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from bssl_tf_deploy import conditions
from bssl_tf_deploy.errors import BsslError, ImageError, ServerError, UnexpectedError, UsageError
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.results import Asked, make_format
from bssl_tf_deploy.serving.guard import PAGE
from bssl_tf_deploy.serving.refusal import JSON, RefusedError
from bssl_tf_deploy.serving.settings import ServeSettings
from bssl_tf_deploy.serving.uploads import read_upload
from bssl_tf_deploy.sources import Item
from bssl_tf_deploy.system_errors import system_error

_log = logging.getLogger(__name__)
_MB = 1_000_000
_STATE_S = 1.0
_STATES = ("temperature_c", "throttled")


class Application:
    """Answers requests that were let in.

    Args:
        predictor: checked against its golden outputs; used by one thread.
        settings: limits.
    """

    def __init__(self, predictor: Predictor, settings: ServeSettings) -> None:
        self._predictor, self._settings = predictor, settings
        manifest = predictor.bundle.manifest
        self._limit = settings.top or predictor.task.usual_limit
        self._format = make_format("jsonl", predictor.task, manifest, Asked(self._limit, False), frames=False)
        self._network = ThreadPoolExecutor(1, "network")
        # Apart, as the state of a machine takes a program on some.
        self._sensors = ThreadPoolExecutor(1, "sensors")
        self._admitted = self._answered = 0
        self._state: dict[str, Any] = {}
        self._state_at = float("-inf")
        self._page, self._policy = _page()

    def routes(self) -> Starlette:
        """The application as ASGI."""
        routes = [
            Route(PAGE, self._show, methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/predict", self._predict, methods=["POST"]),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})
        # It would lead to whatever host the request names.
        app.router.redirect_slashes = False
        return app

    async def _show(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"content-security-policy": self._policy})

    async def _health(self, request: Request) -> Response:
        now = time.monotonic()
        if now - self._state_at > _STATE_S:
            self._state_at = now
            state = await asyncio.get_running_loop().run_in_executor(self._sensors, conditions.state)
            self._state = {key: state[key] for key in _STATES if key in state}
        task = self._predictor.bundle.manifest.task
        counts = {"answered": self._answered, "in_queue": self._admitted}
        return JSONResponse({"status": "ok", "task": task, **counts, **self._state})

    async def _predict(self, request: Request) -> Response:
        try:
            with self._place():
                name, content = await read_upload(request, self._settings.max_mb * _MB, self._settings.timeout_s)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._network, self._answer, name, content)
        except RefusedError as error:
            return error.response()
        except ClientDisconnect:
            return Response(status_code=400)  # For nobody.
        except Exception as error:
            return _failed(error).response()

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places in the queue."""
        if self._admitted >= self._settings.queue:
            error = ServerError(f"{self._admitted} images are in the queue", "Send it again in a second")
            raise RefusedError(503, error, {"retry-after": "1"})
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    def _answer(self, name: str, content: bytes) -> Response:
        item = Item(name, content)
        times = [time.perf_counter()]
        try:
            prepared = self._predictor.prepare(content)
        except ImageError as error:
            return Response(self._format.error(item, error), 400, media_type=JSON)
        times.append(time.perf_counter())
        answer, outputs = self._predictor.answer(prepared, self._limit)
        times.append(time.perf_counter())
        self._answered += 1
        decoding, network = (1000 * (after - before) for before, after in itertools.pairwise(times))
        timing = {"server-timing": f"image;dur={decoding:.3f}, network;dur={network:.3f}"}
        return Response(self._format.answer(item, answer, outputs), headers=timing, media_type=JSON)


def _failed(error: Exception) -> RefusedError:
    """A fault of ours, or the machine's; where it happened is for the log alone."""
    known = error if isinstance(error, BsslError) else system_error(error)
    if known is None:
        place = traceback.extract_tb(error.__traceback__)[-1]
        _log.error("%s: %s (%s, line %s)", type(error).__name__, error, place.filename, place.lineno)
        known = UnexpectedError("the image could not be answered", "See what the server prints")
    else:
        _log.error("%s", known)
    return RefusedError(500, known)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = "there is nothing at this path" if error.status_code == 404 else "the path takes another method"
    refused = UsageError(what, "There are GET /, GET /health and POST /predict")
    return RefusedError(error.status_code, refused, error.headers).response()


def _page() -> tuple[str, str]:
    """The page, and the policy that lets its own script and style run and nothing else."""
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    hashes = {
        tag: base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        for tag in ("script", "style")
        if (found := re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL))
    }
    return text, (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
