"""Problem details (RFC 9457) for every error: the error tree on one side, status and JSON on the other."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from steadcast.errors import (
    Abandoned,
    EngineRefused,
    HandlerTimeout,
    IdConflict,
    InvalidInput,
    InvalidRequest,
    NotAllowed,
    PositionLost,
    RateLimited,
    SteadcastError,
    TooLarge,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.exceptions import HTTPException
    from starlette.requests import Request

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:steadcast:problem:"
RETRY_AFTER: Final = 1.0
"""Seconds to wait before a retry, where a temporary error doesn't say."""

STATUS_BY_CODE: Final = {
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "not_found": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "wrong_host": HTTPStatus.MISDIRECTED_REQUEST,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "token_expired": HTTPStatus.UNAUTHORIZED,
    "token_revoked": HTTPStatus.UNAUTHORIZED,
    "request_timeout": HTTPStatus.REQUEST_TIMEOUT,
}
STATUS_BY_CLASS: Final[tuple[tuple[type[SteadcastError], HTTPStatus], ...]] = (
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (IdConflict, HTTPStatus.CONFLICT),
    (PositionLost, HTTPStatus.GONE),
    (NotAllowed, HTTPStatus.FORBIDDEN),
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (HandlerTimeout, HTTPStatus.SERVICE_UNAVAILABLE),
    (Abandoned, HTTPStatus.SERVICE_UNAVAILABLE),
    (EngineRefused, HTTPStatus.SERVICE_UNAVAILABLE),
)
TITLES: Final = {
    "invalid_stream": "The stream's name is not valid",
    "invalid_event": "An event is not valid",
    "invalid_json": "The body is not JSON",
    "invalid_request": "The request is not valid",
    "event_too_large": "An event is too large",
    "batch_too_large": "Too many events at once",
    "body_too_large": "The body is too large",
    "id_conflict": "The id was used for another event",
    "trimmed": "The position is no longer retained",
    "reset": "The position is of another log",
    "unauthorized": "A token is needed",
    "token_expired": "The token has expired",
    "token_revoked": "The token was taken back",
    "forbidden": "The token doesn't allow this",
    "rate_limited": "Too often",
    "wrong_host": "This server doesn't go by that name",
    "wrong_origin": "Another site may not do this",
    "timeout": "The engine took too long",
    "not_ready": "The server is not ready",
    "internal": "Something went wrong in the server",
}


def status_of(error: SteadcastError) -> HTTPStatus:
    """Give the HTTP status of an error: by its code, else by its class."""
    by_code = STATUS_BY_CODE.get(error.code)
    if by_code is not None:
        return by_code
    for cls, status in STATUS_BY_CLASS:
        if isinstance(error, cls):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_of(error: SteadcastError) -> dict[str, Any]:
    """Give an error's problem details: RFC 9457's members, `code`, `temporary` and the error's fields."""
    status = status_of(error)
    fields = {name: value for name, value in error.fields.items() if value is not None and value is not False}
    retry_after = retry_after_of(error, status)
    if retry_after is not None:
        fields["retry_after"] = retry_after
    return fields | {
        "type": URN + error.code,
        "title": TITLES.get(error.code, status.phrase),
        "status": int(status),
        "detail": error.message,
        "code": error.code,
        "temporary": error.temporary,
    }


def retry_after_of(error: SteadcastError, status: HTTPStatus) -> float | None:
    """Give the seconds after which a retry may help, or None where none can."""
    if error.retry_after is not None:
        return error.retry_after
    waits = status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}
    return RETRY_AFTER if waits and error.temporary else None


def problem(error: SteadcastError, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with an error's problem details, `Retry-After` and `WWW-Authenticate` where they belong."""
    body = problem_of(error)
    sent = dict(headers or {})
    if "retry_after" in body:
        sent["Retry-After"] = str(max(1, math.ceil(body["retry_after"])))
    if body["status"] == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = 'Bearer realm="steadcast"'
    return Response(msgspec.json.encode(body), body["status"], sent, MEDIA_TYPE)


def internal() -> Response:
    """Answer for an error that nobody foresaw; what it was stands in the log alone."""
    return problem(SteadcastError("an unforeseen error; the server's log has it", code="internal"))


async def on_error(_request: Request, error: Exception) -> Response:
    """Answer for an error of the tree (a Starlette exception handler)."""
    refused: SteadcastError = error  # type: ignore[assignment]  # registered for this class alone
    return problem(refused)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer for what the router refuses: an unknown path, or a method that a path doesn't have."""
    refused: HTTPException = error  # type: ignore[assignment]  # registered for this class alone
    if refused.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (refused.headers or {}).get("Allow", "")
        words = f"{request.method} is not for this path; it takes {allowed}"
        return problem(InvalidRequest(words, code="method_not_allowed"), refused.headers)
    return problem(InvalidRequest("there is nothing at this path", code="not_found"), refused.headers)
