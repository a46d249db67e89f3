"""The messages and codes in docs/protocol.md are those of the code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from steadcast import errors, incoming, wire
from steadcast.http.problems import status_of
from tests.docs.snippets import ROOT, snippets

PARSERS: dict[str, Callable[[object], object]] = {
    "subscribe": wire.parse_subscribe,
    "ack": wire.parse_ack,
    "batch": wire.parse_batch,
    "publish": partial(incoming.parse_publish, now="2026-01-01T00:00:00Z"),
}


def test_every_message_that_is_shown_is_valid() -> None:
    shown: dict[str, Any] = dict(
        json.loads(snippet.code) for snippet in snippets("docs/protocol.md") if snippet.language == "json"
    )
    assert set(shown) == set(PARSERS)
    for name, payload in shown.items():
        PARSERS[name](payload)


FIELDS = {"index", "field", "lost", "next", "epoch", "scope"}
"""What stands beside the codes in the page's table."""

RAISED: dict[type[errors.SteadcastError], tuple[str, ...]] = {
    errors.InvalidStream: ("invalid_stream",),
    errors.InvalidEvent: ("invalid_event",),
    errors.InvalidRequest: (
        "invalid_request",
        "invalid_json",
        "unsupported_media_type",
        "not_found",
        "method_not_allowed",
    ),
    errors.NotAllowed: (
        "unauthorized",
        "token_expired",
        "token_revoked",
        "forbidden",
        "wrong_origin",
        "wrong_host",
    ),
    errors.RateLimited: ("rate_limited",),
    errors.IdConflict: ("id_conflict",),
    errors.PositionLost: ("trimmed", "reset"),
    errors.TooLarge: ("event_too_large", "batch_too_large", "body_too_large"),
    errors.EngineUnavailable: ("engine_unavailable", "engine_full", "engine_locked", "engine_readonly"),
    errors.EngineRefused: ("engine_refused", "engine_newer", "engine_invalid"),
    errors.BreakerOpen: ("breaker_open",),
    errors.QueueFull: ("queue_full",),
    errors.HandlerTimeout: ("timeout",),
    errors.Draining: ("draining",),
    errors.Unavailable: ("not_ready",),
    errors.SteadcastError: ("request_timeout",),
}


def documented() -> dict[str, int]:
    """Give the codes of the page's table with their status; the row of 404 and 405 has one of each."""
    text = (ROOT / "docs/protocol.md").read_text("utf-8").partition("### Errors")[2]
    table: dict[str, int] = {}
    for statuses, cell in re.findall(r"^\| (\d[\d, ]*) \| (.+) \|$", text, re.MULTILINE):
        codes = [code for code in re.findall(r"`(\w+)`", cell) if code not in FIELDS]
        numbers = [int(each) for each in statuses.split(",")]
        table |= dict(zip(codes, numbers * len(codes) if len(numbers) == 1 else numbers, strict=True))
    return table


def test_every_code_has_the_status_that_the_page_says() -> None:
    real = {code: int(status_of(error_of(cls, code))) for cls, codes in RAISED.items() for code in codes}
    assert documented() == real


def error_of(cls: type[errors.SteadcastError], code: str) -> errors.SteadcastError:
    if issubclass(cls, errors.PositionLost):
        return cls("gone", epoch="e1", code=code)
    return cls("refused", code=code)
