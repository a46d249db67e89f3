"""The certificate of a server that goes on while its files are replaced."""

from __future__ import annotations

import os
import ssl
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from steadcast.certificate import Certificate
from tests.support.certificates import make_certificate

if TYPE_CHECKING:
    from collections.abc import Callable


class Shown:
    """A certificate as a server has it, in files that can be replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chain, self.key = make_certificate(folder, "server.example")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.chain, self.key)
        self.counts: Counter[str] = Counter()
        self.certificate = Certificate(self.context, self.chain, self.key, self.counts)

    def renew(self) -> bytes:
        """Make another pair, put its files in the place of the first, and give its certificate (DER)."""
        (self.folder / "new").mkdir(exist_ok=True)
        chain, key = make_certificate(self.folder / "new", "server.example")
        found = ssl.PEM_cert_to_DER_cert(chain.read_text())
        chain.replace(self.chain)
        key.replace(self.key)
        return found

    def seen(self) -> bytes | None:
        """Give what somebody who connects is shown."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client, server = context.wrap_bio(back, there), self.context.wrap_bio(there, back, server_side=True)
        ends = [client.do_handshake, server.do_handshake]
        while ends:
            ends = [end for end in ends if not _done(end)]
        return client.getpeercert(binary_form=True)


def _done(handshake: Callable[[], None]) -> bool:
    try:
        handshake()
    except ssl.SSLWantReadError:
        return False
    return True


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


def test_a_renewed_pair_is_shown_once_its_files_stand_still(shown: Shown) -> None:
    first = shown.seen()
    assert shown.certificate.own == first
    second = shown.renew()
    shown.certificate.look()
    assert shown.seen() == first
    shown.certificate.look()
    assert shown.seen() == shown.certificate.own == second != first
    assert not shown.counts


def test_files_that_stay_are_not_loaded_again(shown: Shown) -> None:
    """It would be counted: they have nothing of use, and look as they did."""
    before = shown.chain.stat()
    shown.chain.write_bytes(b"-" * before.st_size)
    os.utime(shown.chain, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(3):
        shown.certificate.look()
    assert not shown.counts


@pytest.mark.parametrize("broken", ["chain", "key", "gone", "mixed"])
def test_what_cant_be_used_leaves_the_old_one_and_is_told_once(shown: Shown, broken: str) -> None:
    first, key = shown.seen(), shown.key.read_bytes()
    second = shown.renew()
    match broken:
        case "chain":
            shown.chain.write_text("nothing of use")
        case "key":
            shown.key.write_text("nothing of use")
        case "gone":
            shown.chain.unlink()
        case _:
            shown.key.write_bytes(key)  # as where the key follows later than its certificate
    for _ in range(4):
        shown.certificate.look()
    assert shown.seen() == shown.certificate.own == first
    assert shown.counts == {"certificates_failed": 1}
    if broken == "mixed":
        second = shown.renew()
        for _ in range(2):
            shown.certificate.look()
        assert shown.seen() == second


def test_a_key_with_a_password_asks_nobody(shown: Shown) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    first = shown.seen()
    shown.renew()
    key = load_pem_private_key(shown.key.read_bytes(), None)
    hidden = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    shown.key.write_bytes(hidden)
    for _ in range(2):
        shown.certificate.look()
    assert shown.seen() == first
    assert shown.counts == {"certificates_failed": 1}


def test_a_file_with_chain_and_key_together_is_renewed_as_well(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path, "one.example")
    both = tmp_path / "both.pem"
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    certificate = Certificate(context, both, None, Counter())
    chain, key = make_certificate(tmp_path, "one.example")
    both.write_bytes(key.read_bytes() + chain.read_bytes())
    for _ in range(2):
        certificate.look()
    assert certificate.own == ssl.PEM_cert_to_DER_cert(chain.read_text())
