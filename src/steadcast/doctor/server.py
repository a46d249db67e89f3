"""The server: who answers, whether it is ready, its token, its clock, and its WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from steadcast.commands.asking import Answer, NoAnswer, ask
from steadcast.doctor.finding import Finding, Findings, Patient, age_words
from steadcast.version import __version__

if TYPE_CHECKING:
    from steadcast.client.address import Address

SKEW: Final = 5.0
"""Seconds by which two clocks may differ before times on the page look wrong."""

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403


def check_server(patient: Patient) -> Findings:
    """See who answers at the address, whether it is ready, which token it wants, what its clock says."""
    address = patient.address
    try:
        ready = ask(address, "/readyz")
    except NoAnswer as error:
        yield _nobody(address, str(error))
        return
    if ready.json().get("status") != "ready" and ready.json().get("code") != "not_ready":
        yield Finding(
            "server",
            "problem",
            f"something else answers at {address.url} (status {ready.status})",
            "stop it, or serve on another --port and set STEADCAST_URL",
        )
        return
    if ready.status != 200:  # noqa: PLR2004 - HTTP's OK
        yield Finding(
            "ready", "problem", str(ready.json().get("detail", ready.status)), "see the server's log"
        )
    stats = ask(address, "/v1/stats", token=patient.token)
    yield from _token(patient, stats)
    if stats.status == 200:  # noqa: PLR2004 - HTTP's OK
        yield _server(address, stats.json())
    yield _clock(stats)
    yield _websocket(patient)


def _nobody(address: Address, why: str) -> Finding:
    refused = "refused" in why.lower()
    told = f"nobody listens at {address.url}" if refused else f"no answer from {address.url}: {why}"
    return Finding("server", "warning" if refused else "problem", told, "start one with: steadcast serve")


def _server(address: Address, stats: dict[str, Any]) -> Finding:
    version = stats.get("version")
    up = age_words(float(stats.get("uptime", 0)))
    told = f"{address.url}: node {stats.get('node')}, steadcast {version}, up {up}"
    fanout = stats.get("fanout")
    if isinstance(fanout, dict):
        together = ", many at a time" if fanout.get("submitted") else ""
        counts = f"{fanout.get('preframed')} clients preframed{together}, {fanout.get('stock')} stock"
        told += f", fan-out {fanout.get('way')} ({counts})"
    if version != __version__:
        return Finding("server", "warning", told, f"this program is {__version__}: update one of them")
    return Finding("server", "ok", told)


def _token(patient: Patient, stats: Answer) -> Findings:
    asks = stats.status == _UNAUTHORIZED
    if patient.token and stats.status == _FORBIDDEN:
        yield Finding("token", "ok", "the server takes it; it doesn't allow everything")
    elif patient.token and not asks:
        free = ask(patient.address, "/v1/stats")
        if free.status == 200:  # noqa: PLR2004 - HTTP's OK
            advice = "serve with --token, or unset STEADCAST_TOKEN"
            yield Finding("token", "warning", "one is set, but the server asks for none", advice)
        else:
            yield Finding("token", "ok", "the server takes it")
    elif patient.token:
        told = str(stats.json().get("detail", "the server refuses it"))
        yield Finding("token", "problem", told, "set STEADCAST_TOKEN to the server's token")
    elif asks:
        advice = "set STEADCAST_TOKEN to it; hooks and publishers spool meanwhile"
        yield Finding("token", "problem", "the server asks for one, and none is set", advice)
    else:
        yield Finding("token", "ok", "none is asked for")


def _clock(answer: Answer) -> Finding:
    """Compare with the server's `Date` (RFC 9110, section 6.6.1), which counts whole seconds."""
    from email.utils import parsedate_to_datetime

    try:
        told = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return Finding("clock", "warning", "the server tells no date", "see what stands in front of it")
    skew = max(told - answer.ended, answer.began - (told + 1.0), 0.0)
    if skew > SKEW:
        return Finding("clock", "warning", f"{skew:.0f} s from the server's", "set both clocks by NTP")
    return Finding("clock", "ok", "agrees with the server's")


def _websocket(patient: Patient) -> Finding:
    """Open a real WebSocket and wait for Engine.IO's first packet (protocol 4: `0`, then JSON)."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    address = patient.address
    scheme = "wss" if address.scheme == "https" else "ws"
    url = f"{scheme}://{address.authority}{address.base}/socket.io/?EIO=4&transport=websocket"
    try:
        with connect(url, proxy=None, open_timeout=3, close_timeout=1) as socket:
            first = socket.recv(timeout=3)
    except (OSError, TimeoutError, WebSocketException) as error:
        return Finding(
            "websocket",
            "warning",
            f"can't be opened ({str(error)[:120]}); pages fall back to polling",
            "let the proxy in front pass Upgrade and Connection on",
        )
    if isinstance(first, str) and first.startswith("0{"):
        return Finding("websocket", "ok", "opens")
    return Finding("websocket", "problem", "what opens speaks no Socket.IO", "see what stands in front")
