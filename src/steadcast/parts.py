"""Parts as the settings describe them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from steadcast.core.backoff import Backoff
from steadcast.core.retry import RetryQueue
from steadcast.core.scopes import Scope, TokenRule
from steadcast.core.session import Window
from steadcast.engines import sqlite_path
from steadcast.engines.base import Retention
from steadcast.errors import InvalidRequest, InvalidSettings
from steadcast.http.tokens import JwtRules
from steadcast.hub import Timing
from steadcast.masking import Masking
from steadcast.tracer import NO_TRACER

if TYPE_CHECKING:
    from pathlib import Path

    from steadcast.config import Settings
    from steadcast.socketio.broadcaster import Held
    from steadcast.tracer import Tracer


def window(settings: Settings) -> Window:
    """Give what a session may have unacked."""
    return Window(settings.window_events, settings.window_bytes)


def timing(settings: Settings) -> Timing:
    """Give the hub's times."""
    return Timing(
        flush_window=settings.flush_window,
        ack_overdue=settings.ack_overdue,
        trim_every=settings.trim_interval,
    )


def retention(settings: Settings) -> Retention:
    """Give what a log keeps."""
    return Retention(
        age=settings.retention_age, events=settings.retention_events, bytes=settings.retention_bytes
    )


def retry_queue(settings: Settings) -> RetryQueue[Held]:
    """Make the queue of broadcasts that failed."""
    delays = Backoff(base=settings.retry_delay, cap=settings.retry_delay_max, spread=0.0)
    return RetryQueue(
        max_retries=settings.max_retries,
        backoff=delays,
        age_limit=settings.retry_age_limit,
        max_size=settings.retry_queue_size,
    )


def dead_file(settings: Settings, engine: object) -> Path | None:
    """Name the file for dead events: as it is set, else beside the SQLite log of that URL, else none."""
    if settings.dead_file is not None:
        return settings.dead_file.absolute()
    if isinstance(engine, str) and engine.startswith("sqlite:///"):
        log_file = sqlite_path(engine)
        return log_file.with_name(f"{log_file.name}.dead")
    return None


def let_in(settings: Settings, own: str) -> tuple[str | None, list[TokenRule], JwtRules | None]:
    """Give what lets clients in; where nothing is set, `own` doesn't either: everybody may come."""
    spool = TokenRule(name="spool", token=own, scopes=[Scope.PUBLISH])
    rules = [*settings.tokens, spool] if settings.guarded else []
    with_jwt = settings.jwt_secret is not None or settings.jwt_jwks is not None
    jwt_rules = JwtRules(
        secret=settings.jwt_secret,
        jwks=settings.jwt_jwks,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway=settings.jwt_leeway,
    )
    return settings.token, rules, jwt_rules if with_jwt else None


def masking(settings: Settings) -> Masking:
    """Make what masks secrets; raises `InvalidRequest` for a pattern that is none."""
    try:
        return Masking(settings.mask_patterns, settings.mask_keys, on=settings.masking)
    except re.error as error:
        told = f"mask_patterns: {error.pattern!a} is no regular expression: {error}"
        raise InvalidRequest(told, field="mask_patterns") from error


def tracer(settings: Settings, node: str) -> Tracer:
    """Open what follows publishes; raises `InvalidSettings` where it isn't installed."""
    if not settings.otel:
        return NO_TRACER
    try:
        from steadcast.tracing.export import open_tracer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        why = "it needs the extra `otel`: pip install 'steadcast[otel]'"
        raise InvalidSettings(f"otel: {why}", wrong={"otel": (why, True)}) from error
    return open_tracer(node)


def guarded(given: Tracer) -> Tracer:
    """Let a tracer's defects be counted, and stop nothing."""
    if given is NO_TRACER:
        return given
    from steadcast.tracing.guard import Guarded

    return Guarded(given)
