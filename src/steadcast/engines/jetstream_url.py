"""What a `nats://` URL says: servers, who connects, and what the stream is to be like."""

from __future__ import annotations

import math
import re
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from steadcast.errors import InvalidRequest

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:@\[\]]+)(?::(\d{1,5}))?")
_LAST_PORT: Final = 65_535
MIN_WINDOW: Final = 10.0
"""Seconds: a shorter window would leave no time to notice that the index lags."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment: its servers, and the JetStream stream that is its log.

    `window` is JetStream's own window for duplicates, in seconds. `max_bytes` bounds the whole stream: over
    it appends are refused. `sync=always` says that the servers flush before they answer (`sync_interval:
    always`), which no client can ask them. `creds`, `ca`, `cert` and `key` are files.
    """

    servers: tuple[str, ...]
    stream: str = "steadcast"
    replicas: int = 1
    storage: Literal["file", "memory"] = "file"
    window: float = 120.0
    max_bytes: int = -1
    sync: Literal["always", "lazy"] = "lazy"
    creds: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @property
    def tls(self) -> bool:
        """Whether connections are to be encrypted."""
        return self.ca is not None or self.cert is not None or self.servers[0].startswith("tls:")


def parse_url(url: str) -> Options:
    """Read `nats://[user[:password]@]host[:port][,host…][?stream=NAME&replicas=3…]`, or the same with `tls://`.

    Who connects is said once, before the first host, and holds for all: a user with a password, or a token.
    Raises `InvalidRequest` in words.
    """
    parts = urlsplit(url)
    who, _, hosts = parts.netloc.rpartition("@")
    names = hosts.split(",")
    if parts.scheme not in {"nats", "tls"} or parts.path.strip("/") or not all(map(_is_host, names)):
        raise InvalidRequest("give nats://host:4222,host:4222?stream=NAME", field="engine")
    if "," in who:
        raise InvalidRequest("say who connects once, before the first host (a comma is %2C)", field="engine")
    pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    servers = tuple(f"{parts.scheme}://{who + '@' if who else ''}{name}" for name in names)
    try:
        options = msgspec.convert({**dict(pairs), "servers": servers}, Options, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the engine's URL: {error}", field="engine") from error
    _check(options)
    return options


def _is_host(name: str) -> bool:
    found = _HOST.fullmatch(name)
    return found is not None and int(found[1] or 0) <= _LAST_PORT


def login(server: str) -> tuple[str, dict[str, str]]:
    """Take who connects off a server's address: it is written as URLs have it, and sent as it is meant."""
    scheme, _, authority = server.partition("://")
    who, named, host = authority.rpartition("@")
    if not named:
        return server, {}
    user, colon, password = who.partition(":")
    told = {"user": unquote(user), "password": unquote(password)} if colon else {"token": unquote(user)}
    return f"{scheme}://{host}", told


def _check(options: Options) -> None:
    if not _NAME.fullmatch(options.stream):
        raise InvalidRequest("stream= takes letters, digits, _ and -, at most 64", field="engine")
    if options.replicas not in {1, 3, 5}:
        raise InvalidRequest("replicas= is 1, 3 or 5", field="engine")
    if not MIN_WINDOW <= options.window < math.inf:
        raise InvalidRequest(f"window= is at least {MIN_WINDOW:g} seconds", field="engine")


def without_secrets(url: str) -> str:
    """Give an engine's URL as it may be shown: without user, password and token."""
    scheme, mark, rest = url.partition("://")
    if scheme not in {"nats", "tls"}:
        return url
    authority, query, options = rest.partition("?")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{query}{options}"
