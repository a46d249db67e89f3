"""`import steadcast` is cheap, and gives each public name when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import steadcast
from steadcast.cli import main


@pytest.mark.parametrize("name", steadcast.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(steadcast, name) is not None
    assert name in dir(steadcast)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = steadcast.nothing


def test_on_windows_what_cannot_work_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be an import of `fcntl` that fails, and a spool that nothing is read from."""
    kept = {name: vars(steadcast).pop(name, None) for name in ("Publisher", "Steadcast")}
    monkeypatch.setattr("os.name", "nt")
    for name in kept:
        with pytest.raises(ImportError, match="WSL"):
            getattr(steadcast, name)
    with pytest.raises(SystemExit, match="WSL"):
        main()


def test_importing_the_package_loads_neither_server_nor_client() -> None:
    heavy = {"socketio", "starlette", "msgspec"}
    program = "import sys, steadcast; print(*{m.split('.')[0] for m in sys.modules})"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & set(found.stdout.split())
