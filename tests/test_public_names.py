"""`import steadcast` is cheap, and gives each public name when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import steadcast


@pytest.mark.parametrize("name", steadcast.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(steadcast, name) is not None
    assert name in dir(steadcast)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = steadcast.nothing


def test_importing_the_package_loads_neither_server_nor_client() -> None:
    heavy = {"socketio", "starlette", "msgspec"}
    program = "import sys, steadcast; print(*{m.split('.')[0] for m in sys.modules})"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & set(found.stdout.split())
