"""An uploaded image, out of the body of a request or of a form in it; in memory, and at most as large as allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from bssl_tf_deploy.errors import ImageError, UsageError
from bssl_tf_deploy.serving.refusal import RefusedError

_FORM = "multipart/form-data"
_MAX_FIELDS = 16
_MAX_NAME = 255
_HOW = (
    "Send the file with `-H 'Content-Type: image/jpeg' --data-binary @photo.jpg`, or as a form, `-F image=@photo.jpg`"
)


async def read_upload(request: Request, limit: int, timeout_s: float) -> tuple[str, bytes]:
    """The name that the client gives an image, which is nothing but a text, and its content.

    Args:
        request: with an image as its body, of a type image/... or application/octet-stream or of none, or as the only
            file in a form.
        limit: for all of the body, bytes.
        timeout_s: for all of it to come, seconds.

    Raises:
        RefusedError: the body is of another type (415), too large (413), takes too long (408), or holds no image (400).
        ClientDisconnect: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", "application/octet-stream", _FORM) and not kind.startswith("image/"):
        raise RefusedError(415, UsageError("the upload is of another type than an image's", _HOW))
    if int(request.headers.get("content-length", "0")) > limit:
        raise _too_large(limit)
    read = _form(request, limit) if kind == _FORM else _body(request, limit)
    try:
        name, content = await asyncio.wait_for(read, timeout_s)
    except asyncio.TimeoutError:
        error = UsageError(f"the upload did not come within {timeout_s:g} s", "Send a smaller image")
        raise RefusedError(408, error) from None
    if not content:
        raise RefusedError(400, ImageError("the upload is empty", _HOW))
    return name, content


async def _body(request: Request, limit: int) -> tuple[str, bytes]:
    return "upload", b"".join([chunk async for chunk in _limited(request, limit)])


async def _form(request: Request, limit: int) -> tuple[str, bytes]:
    parser = MultiPartParser(request.headers, _limited(request, limit), max_files=1, max_fields=_MAX_FIELDS)
    # Starlette would put what is larger into a file.
    parser.spool_max_size = limit
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RefusedError(400, UsageError(f"the form cannot be read: {error.message.rstrip('.')}", _HOW)) from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise RefusedError(400, UsageError("the form has no file", _HOW))
    return (files[0].filename or "upload")[:_MAX_NAME], await files[0].read()


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        yield chunk


def _too_large(limit: int) -> RefusedError:
    error = ImageError(
        f"the upload has more than {limit} bytes", "Send a smaller image, or start the server with a larger --max-mb"
    )
    return RefusedError(413, error)
