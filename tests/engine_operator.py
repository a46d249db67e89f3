"""What a NATS operator gives out: accounts and users as signed tokens, and files of credentials."""

from __future__ import annotations

import base64
import json
import secrets
import time
from binascii import crc_hqx
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OPERATOR, ACCOUNT, USER, SEED = (n << 3 for n in (14, 0, 20, 18))
NO_LIMIT = dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1)
STORES = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}


def _coded(raw: bytes) -> str:
    return base64.b32encode(raw + crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def _part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


class Key:
    """A key of NATS: its public half and its seed as they are written there."""

    def __init__(self, kind: int) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.public = _coded(bytes([kind]) + self.private.public_key().public_bytes_raw())
        self.seed = _coded(bytes([SEED | kind >> 5, (kind & 31) << 3]) + self.private.private_bytes_raw())

    def sign(self, subject: Key, claims: dict[str, Any], expires: float | None = None) -> str:
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {"jti": secrets.token_hex(16), "iat": int(time.time()), "iss": self.public, "name": "test"}
        body |= {"sub": subject.public, "nats": claims | {"version": 2}}
        body |= {} if expires is None else {"exp": int(expires)}
        told = f"{_part(json.dumps(head).encode())}.{_part(json.dumps(body).encode())}"
        return f"{told}.{_part(self.private.sign(told.encode()))}"


class Operator:
    """One operator with an account beside the system's, and the users that it lets in."""

    def __init__(self) -> None:
        operator, system, self._account = Key(OPERATOR), Key(ACCOUNT), Key(ACCOUNT)
        accounts = {
            key.public: operator.sign(key, {"type": "account", "limits": NO_LIMIT | stores})
            for key, stores in ((self._account, STORES), (system, {}))
        }
        preload = "\n".join(f"{name}: {token}" for name, token in accounts.items())
        self.config = (
            f"operator: {operator.sign(operator, {'type': 'operator'})}\nsystem_account: {system.public}\n"
            f"resolver: MEMORY\nresolver_preload {{\n{preload}\n}}"
        )

    def let_in(self, file: Path, expires: float | None = None) -> None:
        """Write the credentials of a new user into a file, as `nsc` does."""
        user = Key(USER)
        token = self._account.sign(user, {"type": "user", "subs": -1, "data": -1, "payload": -1}, expires)
        file.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n"
            "NKEY Seed printed below can be used to sign and prove identity.\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
