"""What `pip install` brings: one wheel with the page, the recorded session and the types in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_the_page_the_recorded_session_and_the_types(tmp_path: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT], check=True)
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = {"http/static/index.html", "demo/session.jsonl", "py.typed", "client/hook.py"}
    assert {f"steadcast/{name}" for name in needed} <= names
    assert any(name.startswith("steadcast/http/static/assets/") and name.endswith(".js") for name in names)
    assert not any("node_modules" in name or name.startswith("tests/") for name in names)
