"""One POST over HTTP/1.1 on a kept connection, under one deadline, and what its answer means.

Written on sockets because `http.client` costs a hook 45 ms of imports at every call, and because its
timeout starts anew with each received byte: a server that answers slowly would hold its caller for ever.
Message framing follows RFC 9112. Proxies named in the environment are not used.
"""

from __future__ import annotations

import json
import socket
import time

from steadcast.client.address import Address, parse_address
from steadcast.client.token import TokenFailed, TokenSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from steadcast.client.token import TokenFunction

ACCEPTED = "accepted"
TEMPORARY = "temporary"
PERMANENT = "permanent"

MAX_RETRY_AFTER = 600.0
"""Seconds; a server that asks for more is asked again then all the same."""

_MAX_HEAD = 64 * 1024
_MAX_BODY = 4 * 1024 * 1024
_RECEIVE = 64 * 1024
_LONGEST_LENGTH = 20
_TEMPORARY_STATUS = {401, 403, 408, 425, 429}
_NOT_OURS = {404, 405}
_UNAUTHORIZED = 401
_MISDIRECTED = 421
"""The server goes by another name (RFC 9110, section 15.5.20): its settings are wrong, and no event is."""


class Outcome:
    """What became of a request.

    `kind` is ACCEPTED, TEMPORARY (sending the same again can help) or PERMANENT; `status` the HTTP
    status, 0 where there was no answer; `code` the server's or a word of our own; `index` the bad event's
    place in a refused batch; `retry_after` in seconds; `answer` the decoded JSON body, if it was one.
    """

    __slots__ = ("answer", "code", "detail", "index", "kind", "retry_after", "status")

    def __init__(
        self,
        kind: str,
        status: int = 0,
        *,
        code: str = "",
        detail: str = "",
        index: int | None = None,
        retry_after: float | None = None,
        answer: Any = None,
    ) -> None:
        self.kind = kind
        self.status = status
        self.code = code
        self.detail = detail
        self.index = index
        self.retry_after = retry_after
        self.answer = answer

    @property
    def reason(self) -> str:
        """Say in one line what happened, for a person who looks at dead entries."""
        return " ".join(str(part) for part in (self.status or "", self.code, self.detail) if part)

    def __repr__(self) -> str:
        return f"Outcome({self.kind}: {self.reason})"


class Connection:
    """A kept connection to one server. For one thread at a time; only `abort` may come from another."""

    def __init__(
        self,
        url: str | Address,
        *,
        token: str | TokenFunction | None = None,
        certificate: Callable[[], bytes | None] | None = None,
    ) -> None:
        """Nothing is opened yet; `token`, or what it returns, goes out as `Authorization: Bearer` (RFC 6750).

        With `certificate`, which gives it (DER), the server is who shows that one, whoever has signed it for
        whatever name: no other is trusted. Without, it is verified by the system's authorities.

        Raises `InvalidRequest` for a URL that isn't a server's, ValueError for a token that no header takes.
        """
        self.address = parse_address(url) if isinstance(url, str) else url
        self._token = TokenSource(token)
        self._certificate = certificate
        self._socket: socket.socket | None = None
        self._aborted = False

    def post(self, path: str, headers: Mapping[str, str], body: bytes, *, timeout: float) -> Outcome:
        """Send one request and classify its answer; over after `timeout` seconds whatever the server does.

        Only the operating system's name lookup can take longer, and a TLS handshake that dribbles.
        Raises ValueError for a path or header that would break the request's framing; trouble with the
        server is an `Outcome`.
        """
        deadline = time.monotonic() + timeout
        try:
            token = self._token.current()
            outcome = self._try(path, headers, body, token, deadline, timeout)
            if outcome.status == _UNAUTHORIZED and token and self._token.refused(token):
                fresh = self._token.current()
                return outcome if fresh == token else self._try(path, headers, body, fresh, deadline, timeout)
        except TokenFailed as error:
            return Outcome(TEMPORARY, code="token_failed", detail=str(error))
        return outcome

    def _try(  # noqa: PLR0917 - the six are of one request
        self,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        token: str,
        deadline: float,
        timeout: float,
    ) -> Outcome:
        request = self._head(path, headers, len(body), token) + body
        try:
            return self._exchange(request, deadline)
        except TimeoutError:
            self.close()
            return Outcome(TEMPORARY, code="timeout", detail=f"no answer within {timeout:g} s")
        except (OSError, _NotHttp) as error:
            self.close()
            return Outcome(TEMPORARY, code="unreachable", detail=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the connection; the next `post` opens another."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def abort(self) -> None:
        """Break off a `post` that is under way in another thread, and refuse all later ones."""
        self._aborted = True
        opened = self._socket
        if opened is not None:
            _shut(opened)

    def _exchange(self, request: bytes, deadline: float) -> Outcome:
        reused = self._socket is not None
        try:
            return self._once(request, deadline)
        except _NoAnswer:
            if not reused:
                raise
            # The server closed the kept connection meanwhile. Ids make a second sending harmless.
            self.close()
            return self._once(request, deadline)

    def _once(self, request: bytes, deadline: float) -> Outcome:
        if self._aborted:
            raise ConnectionAbortedError("aborted")
        if self._socket is None:
            known = None if self._certificate is None else self._certificate()
            self._socket = _open(self.address, deadline, known)
        self._socket.settimeout(_left(deadline))
        whole = _send(self._socket, request)
        status, headers, body, keep = _read_answer(_Reader(self._socket, deadline))
        if not (keep and whole):
            self.close()
        return classify(status, headers, body)

    def _head(self, path: str, headers: Mapping[str, str], length: int, token: str) -> bytes:
        lines = [
            f"POST {self.address.base}{path} HTTP/1.1",
            f"Host: {self.address.authority}",
            f"Content-Length: {length}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if " " in path or not all(line.isascii() and line.isprintable() for line in lines):
            raise ValueError("path and headers are printable ASCII, the path without spaces")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def classify(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """Tell what an answer means for the request: accepted, temporary or permanent.

    5xx says that the server failed, not the request (RFC 9110, section 15.6): temporary, whatever else the
    answer says. Below that a problem's own member `temporary` decides (RFC 9457 extension member). Without
    one, 408, 425 and 429 are temporary, and so are 401 and 403, since a token can be mended. What isn't a
    Steadcast server's answer at all (a redirect, 404 without a problem, 2xx without JSON) is temporary
    too: somebody else is listening there for now, and must not eat what is spooled.
    """
    answer = _json(body)
    fields = answer if isinstance(answer, dict) else {}
    if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110's class of success
        if isinstance(answer, dict) or status in {202, 204}:
            return Outcome(ACCEPTED, status, answer=answer)
        return Outcome(TEMPORARY, status, code="not_steadcast", detail="success without a JSON object")
    code = fields.get("code")
    detail = fields.get("detail")
    return Outcome(
        _kind(status, fields),
        status,
        code=code if isinstance(code, str) else "",
        detail=detail[:500] if isinstance(detail, str) else "",
        index=_index(fields.get("index")),
        retry_after=_retry_after(headers.get("retry-after"), fields.get("retry_after")),
        answer=answer,
    )


def _kind(status: int, fields: Mapping[str, Any]) -> str:
    temporary = fields.get("temporary")
    if status >= 500 or status == _MISDIRECTED:  # noqa: PLR2004 - RFC 9110's class of server errors
        return TEMPORARY
    if isinstance(temporary, bool):
        return TEMPORARY if temporary else PERMANENT
    if status in _NOT_OURS and "code" not in fields:
        return TEMPORARY
    refused = status >= 400 and status not in _TEMPORARY_STATUS  # noqa: PLR2004 - RFC 9110's class
    return PERMANENT if refused else TEMPORARY


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None  # no JSON is an answer too: `classify` says what it means


def _index(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _retry_after(header: str | None, member: object) -> float | None:
    seconds: float | None = None
    if isinstance(member, (int, float)) and not isinstance(member, bool):
        seconds = member
    elif header is not None:
        seconds = float(header) if _digits(header) else _until(header)
    if seconds is None or not seconds >= 0:
        return None
    return float(min(seconds, MAX_RETRY_AFTER))


def _digits(text: str) -> bool:
    # str.isdigit alone also takes superscripts, which int() doesn't.
    return text.isascii() and text.isdigit()


def _until(date: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        return None  # a date nobody can read asks for nothing


class _NotHttp(Exception):
    """The answer isn't HTTP/1.1, or is longer than anything a server of ours answers."""


class _NoAnswer(ConnectionError):
    """The connection ended before the first byte of an answer."""


class _Reader:
    """Bytes from a socket, all under one deadline."""

    def __init__(self, source: socket.socket, deadline: float) -> None:
        self._socket = source
        self._deadline = deadline
        self._held = b""
        self._started = False

    def line(self) -> bytes:
        while b"\n" not in self._held:
            if len(self._held) > _MAX_HEAD:
                raise _NotHttp("a line without an end")
            self._more()
        line, _, self._held = self._held.partition(b"\n")
        return line.rstrip(b"\r")

    def exactly(self, count: int) -> bytes:
        if count > _MAX_BODY:
            raise _NotHttp("the answer is too long")
        parts = [self._held]
        got = len(self._held)
        while got < count:
            parts.append(self._receive())
            got += len(parts[-1])
        whole = b"".join(parts)
        self._held = whole[count:]
        return whole[:count]

    def rest(self) -> bytes:
        parts = [self._held]
        self._held = b""
        while part := self._receive(end=True):
            parts.append(part)
            if sum(map(len, parts)) > _MAX_BODY:
                raise _NotHttp("the answer is too long")
        return b"".join(parts)

    def _more(self) -> None:
        self._held += self._receive()

    def _receive(self, *, end: bool = False) -> bytes:
        self._socket.settimeout(_left(self._deadline))
        try:
            data = self._socket.recv(_RECEIVE)
        except ConnectionResetError as error:
            raise (ConnectionResetError(str(error)) if self._started else _NoAnswer(str(error))) from error
        if not data and not end:
            raise ConnectionError("cut off in the answer") if self._started else _NoAnswer("no answer")
        self._started = True
        return data


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _open(address: Address, deadline: float, certificate: bytes | None) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    trouble: OSError = ConnectionError("the name has no address")
    for number, (family, kind, protocol, _, target) in enumerate(found):
        candidate = socket.socket(family, kind, protocol)
        try:
            # Each address gets its share, so that one which swallows packets leaves time for the next.
            candidate.settimeout(_left(deadline) / (len(found) - number))
            candidate.connect(target)
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            candidate.settimeout(_left(deadline))
            return _secured(candidate, address, certificate)
        except OSError as error:
            candidate.close()
            trouble = error
    raise trouble


def _send(opened: socket.socket, request: bytes) -> bool:
    try:
        opened.sendall(request)
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses early (413, 401) may close before it has read everything: its answer
        # can still be there to read. If it isn't, the reader says so.
        return False
    return True


def _secured(opened: socket.socket, address: Address, certificate: bytes | None) -> socket.socket:
    if address.scheme != "https":
        return opened
    import ssl

    context = ssl.create_default_context()
    if certificate is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # by comparison instead; the handshake shows who has its key
    secured = context.wrap_socket(opened, server_hostname=address.host)
    if certificate is not None and secured.getpeercert(binary_form=True) != certificate:
        secured.close()
        raise ssl.SSLCertVerificationError("the server shows another certificate than its own")
    return secured


def _shut(opened: socket.socket) -> None:
    try:
        opened.shutdown(socket.SHUT_RDWR)
    except OSError:
        opened.close()  # it wasn't connected yet: nothing is waiting in it


def _read_answer(reader: _Reader) -> tuple[int, dict[str, str], bytes, bool]:
    while True:
        version, status = _status(reader.line())
        headers = _headers(reader)
        if not 100 <= status < 200:  # noqa: PLR2004 - interim answers (RFC 9110, section 15.2) are passed over
            break
    keep = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1"
    if status in {204, 304}:
        return status, headers, b"", keep
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return status, headers, _chunked(reader), keep
    length = headers.get("content-length", "")
    if _digits(length):
        return status, headers, reader.exactly(_length(length)), keep
    return status, headers, reader.rest(), False


def _length(digits: str) -> int:
    if len(digits) > _LONGEST_LENGTH:  # int() raises for more than 4,300
        raise _NotHttp("the answer is too long")
    return int(digits)


def _status(line: bytes) -> tuple[str, int]:
    version, _, rest = line.decode("latin-1").partition(" ")
    if not version.startswith("HTTP/1.") or not _digits(rest[:3]):
        raise _NotHttp("no status line")
    return version, int(rest[:3])


def _headers(reader: _Reader) -> dict[str, str]:
    headers: dict[str, str] = {}
    size = 0
    while line := reader.line():
        size += len(line)
        if size > _MAX_HEAD:
            raise _NotHttp("the headers are too long")
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers


def _chunked(reader: _Reader) -> bytes:
    body = b""
    while size := _chunk_size(reader.line()):
        body += reader.exactly(size)
        reader.line()
        if len(body) > _MAX_BODY:
            raise _NotHttp("the answer is too long")
    _headers(reader)
    return body


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise _NotHttp("no chunk size")
    return int(digits, 16)
