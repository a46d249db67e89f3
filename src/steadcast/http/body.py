"""A request's body, read under a limit and a timeout, and its JSON."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import ClientDisconnect

from steadcast.errors import InvalidRequest, SteadcastError, TooLarge
from steadcast.wire import MAX_DEPTH, whole_number

if TYPE_CHECKING:
    from starlette.requests import Request

    from steadcast.http.context import Context

WHOLE: Final = "steadcast.whole"
"""Where a scope says that all of its request is here, so that nothing of it has to be waited for."""
_decoder: Final = msgspec.json.Decoder()


async def read_body(context: Context, request: Request, limit: int | None = None) -> bytes:
    """Read the whole body, at most `limit` bytes of it (`limits.body`), whatever length was declared.

    Raises `TooLarge` (`body_too_large`) as soon as that is known, `InvalidRequest` for a compressed body, and
    408 `request_timeout`. The rest of a refused body is the server's to throw away, so the connection stays.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise InvalidRequest(
            f"a body is taken as it is, not in {encoding[:40]}", code="unsupported_media_type"
        )
    limit = context.limits.body if limit is None else min(limit, context.limits.body)
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and whole_number(declared, limit) is None:
        _refuse(limit)
    try:
        if WHOLE in request.scope:
            body = await _read(request, limit)
        else:
            async with asyncio.timeout(context.limits.body_timeout):
                body = await _read(request, limit)
    except TimeoutError as error:
        context.counts["bodies_too_slow"] += 1
        raise SteadcastError(
            f"the body was not complete after {context.limits.body_timeout:g} s",
            code="request_timeout",
            temporary=True,
        ) from error
    context.tracer.origins(body)
    return body


async def _read(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            _refuse(limit)
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _refuse(limit: int) -> None:
    raise TooLarge(f"a body has at most {limit} bytes", code="body_too_large", limit=limit)


def decode_json(body: bytes) -> Any:
    """Decode JSON (RFC 8259, UTF-8); raises `InvalidRequest` (`invalid_json`) saying what is wrong."""
    try:
        return _decoder.decode(body)
    except RecursionError as error:
        raise InvalidRequest(f"the JSON is nested deeper than {MAX_DEPTH}", code="invalid_json") from error
    except ValueError as error:
        # msgspec's and the codec's errors are both ValueErrors, and neither repeats the input.
        raise InvalidRequest(f"not JSON in UTF-8: {error}", code="invalid_json") from error


def decode_loosely(body: bytes) -> Any:
    r"""Decode JSON whose strings may hold halves of surrogate pairs, which become U+FFFD.

    A JavaScript program that cuts a text inside an emoji writes `"\ud83d"`: its hook's event is worth more
    than that half character. Raises `InvalidRequest` (`invalid_json`) as `decode_json` does.
    """
    try:
        return decode_json(body)
    except InvalidRequest:
        if b"\\ud" not in body.lower():
            raise
        loose = _whole(body)
    return decode_json(loose)


def _whole(body: bytes) -> bytes:
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"not JSON in UTF-8: {error}", code="invalid_json") from error
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
