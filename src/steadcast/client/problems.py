"""A server's refusal as an error of the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from steadcast.client.post import TEMPORARY
from steadcast.errors import (
    Abandoned,
    BreakerOpen,
    Draining,
    EngineUnavailable,
    HandlerTimeout,
    IdConflict,
    InvalidEvent,
    InvalidInput,
    InvalidRequest,
    InvalidStream,
    NotAllowed,
    QueueFull,
    RateLimited,
    SteadcastError,
    TooLarge,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from steadcast.client.post import Outcome

_STANDARD: Final = {"type", "title", "status", "detail", "code", "temporary", "retry_after"}
_BY_CODE: Final[dict[str, type[SteadcastError]]] = {
    **{
        cls.code: cls
        for cls in (
            Abandoned,
            BreakerOpen,
            Draining,
            EngineUnavailable,
            HandlerTimeout,
            IdConflict,
            InvalidEvent,
            InvalidInput,
            InvalidRequest,
            InvalidStream,
            NotAllowed,
            QueueFull,
            RateLimited,
            TooLarge,
            Unavailable,
        )
    },
    "batch_too_large": TooLarge,
    "body_too_large": TooLarge,
    "engine_full": EngineUnavailable,
    "engine_locked": EngineUnavailable,
    "engine_readonly": EngineUnavailable,
    "token_expired": NotAllowed,
    "token_revoked": NotAllowed,
    "unauthorized": NotAllowed,
}
_UNAUTHORIZED: Final = {401, 403}


def class_of(code: str, fallback: type[SteadcastError] = SteadcastError) -> type[SteadcastError]:
    """Give the class of the errors that have this code."""
    return _BY_CODE.get(code, fallback)


def wait_of(told: Mapping[Any, object]) -> float | None:
    """Give the seconds that an error's `retry_after` asks to wait, where it does."""
    wait = told.get("retry_after")
    return float(wait) if isinstance(wait, (int, float)) else None


def error_of(outcome: Outcome) -> SteadcastError:
    """Give the error that a refused or failed request stands for; the problem's members are its fields."""
    temporary = outcome.kind == TEMPORARY
    fallback: type[SteadcastError] = Unavailable if temporary else InvalidInput
    if outcome.status in _UNAUTHORIZED:
        fallback = NotAllowed
    # Without a status there was no answer: the code is a word of ours, not the server's.
    cls = class_of(outcome.code, fallback) if outcome.status else fallback
    members = outcome.answer if isinstance(outcome.answer, dict) else {}
    fields = {str(name): value for name, value in members.items() if name not in _STANDARD}
    return cls(
        outcome.reason or "no answer",
        code=outcome.code or None,
        temporary=temporary,
        retry_after=outcome.retry_after,
        **{name: value for name, value in fields.items() if name != "message"},
    )
