"""The certificate that a server shows: taken anew when its files are replaced, as every few weeks."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Final

import structlog

from steadcast.http.tokens import stamp_of

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

log = structlog.get_logger("steadcast.serve")

_CERTIFICATE: Final = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Certificate:
    """A chain and its key, in PEM, as `context` shows them to whoever connects from then on.

    `own` is the first certificate (DER), None where it can't be read. By it the server knows itself: by the
    address at which it reaches itself no authority would.
    """

    def __init__(self, context: ssl.SSLContext, chain: Path, key: Path | None, counts: Counter[str]) -> None:
        """Know what the context has loaded; what can't be loaded later is counted (`certificates_failed`)."""
        self._context = context
        self._chain = chain
        self._key = key
        self._counts = counts
        self._tried = self._seen = self._stamp()
        self.own = self._read()

    def look(self) -> None:
        """Take the files if they were replaced, and were the same at the last look: both are by then."""
        stamp = self._stamp()
        settled, self._seen = stamp == self._seen, stamp
        if not settled or stamp == self._tried:
            return
        self._tried = stamp
        try:
            self._load()
        except OSError as error:  # ssl's own are of this kind
            self._counts["certificates_failed"] += 1
            log.warning("the renewed certificate can't be used; the old one holds", error=str(error))
        else:
            self.own = self._read()
            log.info("the renewed certificate is used", file=str(self._chain))

    def _load(self) -> None:
        # A chain whose key doesn't fit would be in use by the time that this is known: it is tried aside.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._chain, self._key, _no_password)
        self._context.load_cert_chain(self._chain, self._key, _no_password)

    def _read(self) -> bytes | None:
        try:
            found = _CERTIFICATE.search(self._chain.read_text("ascii", "replace"))
            return None if found is None else ssl.PEM_cert_to_DER_cert(found[0])
        except (OSError, ValueError) as error:
            self._counts["certificates_failed"] += 1
            log.warning("the own certificate can't be read", error=str(error))
            return None

    def _stamp(self) -> object:
        files = [self._chain] if self._key is None else [self._chain, self._key]
        try:
            return [stamp_of(each) for each in files]
        except OSError:
            return None  # in the middle of a replacement; if it stays so, the try to load it is counted


def _no_password() -> str:
    """Ask nobody: there may be a terminal, but a server doesn't wait for it."""
    return ""
