"""Who may come in: the Host by name, the Origin of what changes something, and the token.

`authorize`, `check_host` and `check_origin` serve the Socket.IO handshake as well.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.responses import Response

from steadcast.errors import InvalidRequest, NotAllowed
from steadcast.http.body import decode_json, read_body

if TYPE_CHECKING:
    from starlette.requests import Request

    from steadcast.http.context import Context

COOKIE: Final = "steadcast_session"
COOKIE_AGE: Final = 30 * 24 * 3600
"""Seconds after which a browser is asked for the token again."""
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
ANY_HOST: Final = "*"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def check_host(context: Context, host: str | None) -> None:
    """Refuse a Host header whose name isn't ours, whatever its port: DNS rebinding (`wrong_host`)."""
    if ANY_HOST in context.allowed_hosts:
        return
    name = _host_name(host or "")
    own = {each.lower().rstrip(".") for each in context.allowed_hosts}
    if name not in LOOPBACK and (not name or name not in own):
        raise NotAllowed(
            "the Host header names another server; names beside localhost are set as allowed_hosts",
            code="wrong_host",
        )


def check_origin(context: Context, origin: str | None, host: str | None) -> None:
    """Refuse a request that a page of another origin makes (`wrong_origin`).

    Without an Origin it is no page's. Schemes aren't compared: a proxy in front may have taken the TLS off.
    """
    if origin is None:
        return
    own = {_netloc(f"//{host or ''}")}
    if context.server_url:
        own.add(_netloc(context.server_url))
    asked = _netloc(origin)
    if asked is None or asked not in own:
        raise NotAllowed("a page of another origin may not do this", code="wrong_origin")


def authorize(context: Context, *, token: str | None = None, cookie: str | None = None) -> None:
    """Let in who has the token, or the cookie that `/v1/login` gave for it; everybody where none is set.

    `token` is bare, without "Bearer"; `cookie` is the whole Cookie header. Compares in constant time.
    Raises `NotAllowed` (`unauthorized`).
    """
    if context.token is None:
        return
    if token is not None and _same(token, context.token):
        return
    if cookie is not None and _same(_session_in(cookie), session_of(context.token)):
        return
    context.counts["unauthorized"] += 1
    told = "the token is not the right one" if token else "this server asks for its token"
    raise NotAllowed(told, code="unauthorized")


def bearer(header: str | None) -> str | None:
    """Give the token of an Authorization header (RFC 6750), or None."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    # A server gives each byte of a header as a character; a token that isn't ASCII is UTF-8 in them.
    return token.strip().encode("latin-1", "replace").decode("utf-8", "replace")


def session_of(token: str) -> str:
    """Give the cookie's value for a token: derived, since browsers show a host's cookies to all its ports."""
    return hmac.new(token.encode(), b"steadcast session 1", hashlib.sha256).hexdigest()


async def login(context: Context, request: Request) -> Response:
    """Take the token from a page, once, and give it a cookie that no script can read: `POST /v1/login`."""
    body = decode_json(await read_body(context, request))
    token = body.get("token") if isinstance(body, dict) else None
    if not isinstance(token, str):
        raise InvalidRequest('the body is {"token": "…"}', field="token")
    authorize(context, token=token)
    response = Response(status_code=204)
    if context.token is not None:
        _set_cookie(context, request, response, session_of(context.token), COOKIE_AGE)
    return response


async def logout(context: Context, request: Request) -> Response:
    """Take the cookie back: `POST /v1/logout`."""
    response = Response(status_code=204)
    _set_cookie(context, request, response, "", 0)
    return response


def _set_cookie(context: Context, request: Request, response: Response, value: str, age: int) -> None:
    response.set_cookie(
        COOKIE,
        value,
        max_age=age,
        path=context.base or "/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def _session_in(header: str) -> str:
    """Find our cookie among those of every server on this host, some of which no parser of RFC 6265 takes."""
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode())


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""  # no host at all, which is refused as a wrong one


def _netloc(url: str) -> tuple[str, int | None] | None:
    """Give a URL's host and port, a port that is its scheme's default as None; None where it has no host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None  # refused as a foreign origin
    if not parts.hostname:
        return None
    return parts.hostname, None if port in _DEFAULT_PORTS.values() else port
