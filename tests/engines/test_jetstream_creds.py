"""Files of credentials for NATS, without a server; `test_jetstream` has one that lets them in."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from steadcast.engines.jetstream_creds import read_credentials
from steadcast.errors import EngineRefused
from tests.engine_operator import Operator

JWT = "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n"
SEED = "-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n"


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_what_is_read_signs_as_the_key_in_the_file(tmp_path: Path, ends: str) -> None:
    creds = tmp_path / "node.creds"
    Operator().let_in(creds)
    creds.write_bytes(creds.read_bytes().replace(b"\n", ends.encode()))
    found = read_credentials(str(creds))
    assert found.token in creds.read_bytes()
    found.key.public_key().verify(base64.b64decode(found.sign("nonce")), b"nonce")


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "nonsense",
        JWT,
        JWT + SEED.format("SUA"),
        JWT + SEED.format("MFRGG"),
        SEED.format("SUA"),
    ],
)
def test_a_file_without_credentials_is_refused_by_its_name(tmp_path: Path, content: str | None) -> None:
    creds = tmp_path / "node.creds"
    if content is not None:
        creds.write_text(content)
    with pytest.raises(EngineRefused, match=r"credentials.*node\.creds"):
        read_credentials(str(creds))
