"""A user's credentials for NATS: a JWT, and the key that signs what the server asks to have signed.

The file is what `nsc` writes (docs.nats.io, "Connecting with a credentials file"). A key's seed is base32 of
two bytes that say what it is for, 32 of an Ed25519 key and two of a checksum (github.com/nats-io/nkeys).
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from steadcast.errors import EngineRefused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PARTS: Final = re.compile(rb"-{3,}BEGIN ([A-Z ]+?)-{3,}\s+([\w.=-]+?)\s+-{3,}END")
_SEED: Final = slice(2, 34)
_SEED_BYTES: Final = 36


class Credentials(NamedTuple):
    """Who connects, and the key that proves it."""

    token: bytes
    key: Ed25519PrivateKey

    def sign(self, nonce: str) -> bytes:
        """Sign what the server gave, as base64."""
        return base64.b64encode(self.key.sign(nonce.encode()))


def read_credentials(path: str) -> Credentials:
    """Read a file of credentials. Raises `EngineRefused` where it can't be read or holds none."""
    try:
        parts = dict(_PARTS.findall(Path(path).read_bytes()))
    except OSError as error:
        raise EngineRefused(f"the credentials can't be read: {error}") from error
    try:
        return Credentials(parts[b"NATS USER JWT"], _key(parts[b"USER NKEY SEED"]))
    except (KeyError, ValueError) as error:
        raise EngineRefused(f"there are no credentials of a NATS user in {path}") from error


def _key(seed: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    decoded = base64.b32decode(seed + b"=" * (-len(seed) % 8))
    if len(decoded) != _SEED_BYTES:
        raise ValueError("no seed")
    return Ed25519PrivateKey.from_private_bytes(decoded[_SEED])
