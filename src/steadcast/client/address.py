"""A server's address: from a URL to where to connect, and to the name of its spool folder.

Only the standard library, and little of it: every hook call imports this.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DEFAULT_URL = "http://127.0.0.1:8765"
_PORTS = {"http": 80, "https": 443}
_LOCAL = {"localhost", "::1", "0.0.0.0", "::", ""}  # noqa: S104 - a name to recognise, nothing is bound
_LONGEST_FOLDER = 200
_LONGEST_LABEL = 63
"""Characters between two dots of a name (RFC 1035, section 2.3.4)."""


class Address:
    """Where a server listens: `scheme`, `host`, `port` and `base`, the path that its routes stand under."""

    __slots__ = ("base", "host", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int, base: str = "") -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.base = base

    @property
    def authority(self) -> str:
        """Give the `Host` header's value (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Give the address as a URL without a trailing slash."""
        return f"{self.scheme}://{self.authority}{self.base}"

    @property
    def folder(self) -> str:
        """Give the name of this server's spool folder.

        One listening socket has one folder, by whatever local name a client calls it: `localhost`,
        127.0.0.0/8, `::1` and the wildcard addresses that a server is bound to are the same. The scheme
        makes no difference, since two servers can't share a port; the base path does.
        """
        host = "localhost" if _is_local(self.host) else self.host
        name = quote(f"{host}_{self.port}{self.base.replace('/', '_')}", safe="")
        return name if len(name) <= _LONGEST_FOLDER else _shortened(name)


def parse_address(url: str) -> Address:
    """Turn a server's URL into its `Address`; without a scheme it is http.

    Raises `InvalidRequest` for anything that is no http or https URL of a server.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        _refuse(url, str(error))
    if parts.scheme not in _PORTS:
        _refuse(url, "the scheme is neither http nor https")
    host = (parts.hostname or "").rstrip(".")
    if not host or parts.username is not None or parts.query or parts.fragment:
        _refuse(url, "it needs a host, and takes no user, query or fragment")
    _check_printable(url, host + parts.path)
    if ":" not in host and not all(0 < len(label) <= _LONGEST_LABEL for label in host.split(".")):
        # The lookup of such a name raises what is no OSError.
        _refuse(url, f"the parts of a host's name have 1 to {_LONGEST_LABEL} characters")
    return Address(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, parts.path.rstrip("/"))


def _check_printable(url: str, text: str) -> None:
    # What gets past here is written into request lines and headers.
    if not text.isascii() or not text.isprintable() or " " in text:
        _refuse(url, "host and path are printable ASCII without spaces")


def _is_local(host: str) -> bool:
    return host in _LOCAL or (host.startswith("127.") and host.replace(".", "").isdigit())


def _shortened(name: str) -> str:
    from hashlib import blake2b

    return f"{name[:_LONGEST_FOLDER]}-{blake2b(name.encode(), digest_size=8).hexdigest()}"


def _refuse(url: str, why: str) -> NoReturn:
    from steadcast.errors import InvalidRequest

    raise InvalidRequest(f"not a server's URL: {url[:200]!r}: {why}", field="url")
