"""The error tree. Every error carries fields; `code` and `temporary` are what travels on the wire.

SteadcastError              (its own code: unreachable)
├── InvalidInput            what came in is refused; retrying the same can't help
│   ├── InvalidStream       a stream name outside the grammar: invalid_stream
│   ├── InvalidEvent        an event outside the grammar (index, field): invalid_event
│   ├── InvalidSettings     settings that can't be used (wrong): invalid_settings
│   ├── InvalidRequest      a payload or setting of the wrong form: invalid_request, invalid_json,
│   │                       no_handler, not_found, method_not_allowed, unsupported_media_type
│   └── TooLarge            over a limit (limit): event_too_large, batch_too_large, body_too_large,
│                           too_many_streams
├── IdConflict              the same id with another body (id): id_conflict
├── PositionLost            a position can't be read (lost, epoch): trimmed, reset
├── NotAllowed              no token, a wrong one, a missing scope, a foreign name: unauthorized,
│                           forbidden, token_expired, token_revoked, wrong_host, wrong_origin
├── RateLimited             over a rate (retry_after): rate_limited
├── Unavailable             away for now; a retry can help (retry_after): unavailable, not_ready,
│   │                       ack_overdue, stale and disconnected (the client may come back)
│   ├── EngineUnavailable   the engine is away, locked, full, read-only: engine_unavailable,
│   │                       engine_locked, engine_full, engine_readonly
│   ├── BreakerOpen         the circuit breaker refuses for now: breaker_open
│   ├── QueueFull           a bounded buffer is full: queue_full
│   └── Draining            the server is going away: draining
├── HandlerTimeout          a handler or a request took too long (event, timeout): timeout,
│                           request_timeout
├── Abandoned               retries are used up (reason): abandoned
├── EngineRefused           a store that this program can't open until somebody mends it:
│                           engine_refused, engine_newer, engine_invalid
└── IllegalInput            a machine got an input that its state forbids: illegal_input
"""

from __future__ import annotations

from typing import Any


class SteadcastError(Exception):
    """The root: `code` names the error on the wire, `temporary` says whether a retry can help."""

    code = "error"
    temporary = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        temporary: bool | None = None,
        retry_after: float | None = None,
        **fields: Any,
    ) -> None:
        """Keep the fields; `retry_after` is in seconds."""
        super().__init__(message)
        self.message = message
        self.code = code if code is not None else type(self).code
        self.temporary = temporary if temporary is not None else type(self).temporary
        self.retry_after = retry_after
        self.fields = fields

    def as_wire(self) -> dict[str, Any]:
        """Give the `error` object of a failed acknowledgement (protocol version 1)."""
        wire: dict[str, Any] = {"code": self.code, "temporary": self.temporary, "message": self.message}
        if self.retry_after is not None:
            wire["retry_after"] = self.retry_after
        return wire | self.fields


class InvalidInput(SteadcastError):
    """What came in is refused; sending the same again can't help."""

    code = "invalid_input"


class InvalidStream(InvalidInput):
    """A stream name outside the grammar."""

    code = "invalid_stream"


class InvalidEvent(InvalidInput):
    """An event outside the grammar; `index` and `field` say which."""

    code = "invalid_event"


class InvalidRequest(InvalidInput):
    """A payload, parameter or setting of the wrong form."""

    code = "invalid_request"


class InvalidSettings(InvalidInput):
    """Settings that can't be used; `wrong` has for each name why, and what was given."""

    code = "invalid_settings"

    def __init__(self, message: str, *, wrong: dict[str, tuple[str, Any]] | None = None) -> None:
        """Say it in words without what was given, since that may be a secret."""
        super().__init__(message)
        self.wrong = wrong or {}


class TooLarge(InvalidInput):
    """Over a limit; `limit` says which number."""

    code = "event_too_large"


class IdConflict(SteadcastError):
    """The same (source, id) came with another type, subject or data."""

    code = "id_conflict"


class PositionLost(SteadcastError):
    """A position can't be read: `code` is `trimmed` (with `lost`, the range that is gone) or `reset`."""

    code = "trimmed"

    def __init__(
        self,
        message: str,
        *,
        epoch: str,
        lost: tuple[int, int] | None = None,
        maybe: bool = False,
        code: str | None = None,
    ) -> None:
        """Say which offsets are gone (first and last), in which epoch."""
        super().__init__(message, code=code, epoch=epoch, lost=lost, maybe=maybe)
        self.epoch = epoch
        self.lost = lost
        self.maybe = maybe


class NotAllowed(SteadcastError):
    """No token, a wrong one, an expired one (temporary), or a scope that is missing."""

    code = "forbidden"


class RateLimited(SteadcastError):
    """Over a rate; `retry_after` says when to come again."""

    code = "rate_limited"
    temporary = True


class Unavailable(SteadcastError):
    """Something is away for now; a retry can help."""

    code = "unavailable"
    temporary = True


class EngineUnavailable(Unavailable):
    """The engine can't take or give events now: away, locked, full or read-only."""

    code = "engine_unavailable"


class BreakerOpen(Unavailable):
    """The circuit breaker spares a failing engine."""

    code = "breaker_open"


class QueueFull(Unavailable):
    """A bounded buffer is full."""

    code = "queue_full"


class Draining(Unavailable):
    """The server is going away; another connection or a later one will serve."""

    code = "draining"


class HandlerTimeout(SteadcastError):
    """A handler took longer than its timeout (seconds)."""

    code = "timeout"
    temporary = True


class Abandoned(SteadcastError):
    """An event was given up; `reason` says why, and a dead event remains."""

    code = "abandoned"


class EngineRefused(SteadcastError):
    """A store that this program can't open: of a newer schema, or not a store at all.

    No wait alone helps, but whoever runs the server mends it: nothing is wrong with what a client asked.
    """

    code = "engine_refused"
    temporary = True


class IllegalInput(SteadcastError):
    """A state machine was given an input that its state forbids: a defect in the caller."""

    code = "illegal_input"
