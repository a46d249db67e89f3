"""The TypeScript client's types, as a program meets them that isn't a page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT

CHECK = Path(__file__).with_name("check_types.mjs")
PROGRAM = """
import { type CursorStore, SocketClient } from "@steadcast/client";

export const client = new SocketClient("http://127.0.0.1:8765", { token: async () => "t" });
export const state: string = client.snapshot().state;
export function follow(persist: CursorStore): void {
  client.subscribe("orders", { from: "start", persist, onEvent: ({ id }) => id.length });
}
"""


@pytest.mark.parametrize("resolution", ["Bundler", "NodeNext"])
def test_the_built_types_need_none_of_the_dom(tmp_path: Path, resolution: str) -> None:
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "program.ts").write_text(PROGRAM)
    node = shutil.which("node") or str(ROOT / ".venv" / "bin" / "node")
    command = [node, str(CHECK), str(tmp_path / "program.ts"), resolution]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (said.returncode, said.stderr) == (0, "")
