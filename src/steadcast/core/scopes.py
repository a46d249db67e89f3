"""Who somebody is and what they may: scopes, patterns of streams, and an end. Pure.

A pattern is a stream's name in which one `*` stands for any run of characters: `orders`, `orders.*`,
`*.audit`, `*`. Names that begin with `steadcast.` are the system's own and tell of every stream, so that only
`*` itself and patterns that begin with `steadcast.` match them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from steadcast.errors import InvalidRequest, NotAllowed
from steadcast.wire import SYSTEM_PREFIX

EVERY: Final = "*"
MAX_PATTERN: Final = 128
MAX_PATTERNS: Final = 256


class Scope(StrEnum):
    """What can be allowed. None implies another; `admin` is of the whole server, whatever the patterns."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    ADMIN = "admin"


class Grant:
    """What a token stands on. Taken back, it ends everybody who came in by that token."""

    __slots__ = ("revoked",)

    def __init__(self) -> None:
        """Hold."""
        self.revoked = False

    def revoke(self) -> None:
        """Take it back, for good."""
        self.revoked = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who connected or asks. `expires` is Unix time in seconds; None never does.

    `grant` is what can be taken back before that, where anything can.
    """

    name: str = "anybody"
    scopes: frozenset[Scope] = frozenset(Scope)
    streams: tuple[str, ...] = (EVERY,)
    expires: float | None = None
    grant: Grant | None = field(default=None, compare=False, repr=False)

    def check(self, scope: Scope, stream: str | None = None, *, now: float) -> None:
        """Raise `NotAllowed`: as `ended` says, or `forbidden` with what is missing; `now` is Unix time.

        Without a `stream` the scope alone is asked for, on whatever stream; `"*"` asks for all of them.
        """
        if (why := self.ended(now)) is not None:
            raise why
        if scope not in self.scopes:
            raise NotAllowed(f"this token may not {WORDS[scope]}", code="forbidden", scope=str(scope))
        if stream is not None and scope is not Scope.ADMIN and not self.covers(stream):
            told = "all streams" if stream == EVERY else f"the stream {stream[:MAX_PATTERN]!a}"
            raise NotAllowed(f"this token may not {WORDS[scope]} {told}", code="forbidden", scope=str(scope))

    def covers(self, stream: str) -> bool:
        """Tell whether a stream is among this identity's."""
        return any(matches(pattern, stream) for pattern in self.streams)

    def ended(self, now: float) -> NotAllowed | None:
        """Give why nothing is allowed any more: `token_revoked` or `token_expired`; None while it holds.

        Both are temporary: a fresh token can help.
        """
        if self.grant is not None and self.grant.revoked:
            return NotAllowed("the token was taken back", code="token_revoked", temporary=True)
        if self.expires is not None and now >= self.expires:
            return NotAllowed("the token has expired", code="token_expired", temporary=True)
        return None


class TokenRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the settings say of a static token: either the token itself, or its SHA-256 in hex."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    scopes: Annotated[list[Scope], Meta(min_length=1)]
    streams: tuple[str, ...] = (EVERY,)
    token: str | None = None
    sha256: Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")] | None = None

    def __repr__(self) -> str:
        return f"TokenRule({self.name!r})"


ANYBODY: Final = Identity()
"""Everybody, where no token is set."""
WORDS: Final = {
    Scope.PUBLISH: "publish to",
    Scope.SUBSCRIBE: "read",
    Scope.ADMIN: "administer this server",
}


def matches(pattern: str, stream: str) -> bool:
    """Tell whether a pattern stands for a stream. Linear in its length, whatever the pattern."""
    if pattern == EVERY:
        return True
    if stream.startswith(SYSTEM_PREFIX) and not pattern.startswith(SYSTEM_PREFIX):
        return False
    before, star, behind = pattern.partition(EVERY)
    if not star:
        return pattern == stream
    long_enough = len(stream) >= len(before) + len(behind)
    return long_enough and stream.startswith(before) and stream.endswith(behind)


def check_pattern(pattern: str) -> str:
    """Return a pattern that can match something; raises `InvalidRequest`."""
    if not 0 < len(pattern) <= MAX_PATTERN or pattern.count(EVERY) > 1:
        raise InvalidRequest(
            f"a stream pattern has 1 to {MAX_PATTERN} characters and at most one *", field="streams"
        )
    return pattern
