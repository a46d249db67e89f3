"""Who may come in: the Host by name, the Origin of what changes something, and the token.

`authorize`, `check_host` and `check_origin` serve the Socket.IO handshake as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from starlette.responses import Response

from steadcast.core.scopes import ANYBODY, Identity
from steadcast.errors import InvalidRequest, NotAllowed
from steadcast.http.body import decode_json, read_body
from steadcast.http.rates import network
from steadcast.http.tokens import is_jwt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from steadcast.http.context import Context

COOKIE: Final = "steadcast_session"
COOKIE_AGE: Final = 30 * 24 * 3600
"""Seconds after which a browser is asked for the token again."""
LOGIN_BYTES: Final = 64 * 1024
"""The largest body of a login: whoever sends it has shown no token yet."""
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
IDENTITY: Final = "steadcast.identity"
"""Where a request's scope keeps who it comes from."""
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
    if origin.lower() in context.cors_origins:
        return
    asked = _netloc(origin)
    if asked is None or asked not in own:
        raise NotAllowed("a page of another origin may not do this", code="wrong_origin")


def check_allowed_origin(origin: str) -> str:
    """Return an origin as browsers write it; raises `InvalidRequest` for what is none."""
    parts = urlsplit(origin)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or origin.count("/") != 2:  # noqa: PLR2004 - scheme://
        raise InvalidRequest(
            "cors_origins: an origin is a scheme, a name and perhaps a port, as in https://app.example",
            field="cors_origins",
        )
    return origin.lower()


async def authorize(
    context: Context,
    *,
    token: str | None = None,
    cookie: str | None = None,
    host: str | None = None,
    address: str | None = None,
) -> Identity:
    """Tell who shows this token, or else this cookie of `/v1/login`; everybody where none is set.

    `token` is bare, without "Bearer"; `cookie` is the whole Cookie header, `host` the Host that was asked;
    `address` is the client's.
    Raises `NotAllowed` (`unauthorized`, `token_expired`), and `RateLimited` after too many wrong ones.
    """
    tokens = context.tokens
    if not tokens.required:
        return ANYBODY
    shown = token if token is not None else _session_in(cookie or "", host)
    # A JWT can't be guessed, and each refresh brings another: the limit would only hit the honest.
    guess = bool(shown) and not is_jwt(shown)
    if guess:
        await context.rates.guess(address, shown)
    try:
        identity = tokens.identify(shown) if token is not None else tokens.identify_session(shown)
    except NotAllowed as error:
        context.counts[error.code] += 1
        if guess:
            await context.rates.guessed(address, shown, right=False)
        if not shown:
            raise NotAllowed("this server asks for its token", code="unauthorized") from error
        raise
    if guess:
        await context.rates.guessed(address, shown, right=True)
    return identity


def identity_of(request: Request) -> Identity:
    """Tell who a request was found to come from."""
    identity: Identity = request.scope.get(IDENTITY, ANYBODY)
    return identity


def address_of(scope: Mapping[str, Any]) -> str | None:
    """Give the client's address, as the server or a proxy that it trusts tells it."""
    client = scope.get("client")
    return client[0] if client else None


def client_of(identity: Identity, address: str | None) -> str:
    """Name what the publish rate is counted for: a token at an address."""
    return f"{identity.name} {network(address)}"


def bearer(header: str | None) -> str | None:
    """Give the token of an Authorization header (RFC 6750), or None."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    # A server gives each byte of a header as a character; a token that isn't ASCII is UTF-8 in them.
    return token.strip().encode("latin-1", "replace").decode("utf-8", "replace")


async def login(context: Context, request: Request) -> Response:
    """Take the token from a page, once, and give it a cookie that no script can read: `POST /v1/login`."""
    body = decode_json(await read_body(context, request, LOGIN_BYTES))
    token = body.get("token") if isinstance(body, dict) else None
    if not isinstance(token, str):
        raise InvalidRequest('the body is {"token": "…"}', field="token")
    identity = await authorize(context, token=token, address=address_of(request.scope))
    response = Response(status_code=204)
    if context.tokens.required:
        left = COOKIE_AGE if identity.expires is None else int(identity.expires - context.wall())
        session = context.tokens.session_of(token)
        _set_cookie(context, request, response, session, min(left, COOKIE_AGE))
    return response


async def logout(context: Context, request: Request) -> Response:
    """Take the cookie back: `POST /v1/logout`."""
    response = Response(status_code=204)
    _set_cookie(context, request, response, "", 0)
    return response


def _set_cookie(context: Context, request: Request, response: Response, value: str, age: int) -> None:
    response.set_cookie(
        _cookie_of(request.headers.get("host")),
        value,
        max_age=age,
        path=context.address(request.scope) or "/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def _cookie_of(host: str | None) -> str:
    """Name the cookie by the port: of one name, all ports of a host share one (RFC 6265, section 8.5)."""
    try:
        port = urlsplit(f"//{host or ''}").port
    except ValueError:
        port = None  # a wrong host, which is refused as one
    return COOKIE if port is None else f"{COOKIE}_{port}"


def _session_in(header: str, host: str | None) -> str:
    """Find our cookie among those of every server on this host, some of which no parser of RFC 6265 takes."""
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    values = {name: value for name, _, value in reversed(list(pairs))}
    return values.get(_cookie_of(host), "")


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
