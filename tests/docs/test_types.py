"""The TypeScript client's types, as a program meets them that isn't a page."""

from __future__ import annotations

import json
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


REQUIRED = """
const { EmissionFailed, SocketClient } = require("@steadcast/client");
const client = new SocketClient("http://127.0.0.1:9", { autoConnect: false });
client.emitWithRetry("never").catch((error) => console.log(error instanceof EmissionFailed, error.reason));
client.close();
console.log(require.resolve("@steadcast/client").split("/").at(-1));
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    return tmp_path


def node(*command: str | Path) -> str:
    program = shutil.which("node") or str(ROOT / ".venv" / "bin" / "node")
    said = subprocess.run([program, *command], capture_output=True, text=True, check=False, timeout=120)
    assert (said.returncode, said.stderr) == (0, "")
    return said.stdout


@pytest.mark.parametrize(
    ("resolution", "kind"),
    [("Bundler", "module"), ("NodeNext", "module"), ("Node16", "module"), ("Node16", "commonjs")],
)
def test_the_built_types_need_none_of_the_dom(folder: Path, resolution: str, kind: str) -> None:
    (folder / "package.json").write_text(json.dumps({"type": kind}))
    (folder / "program.ts").write_text(PROGRAM)
    node(CHECK, folder / "program.ts", resolution)


def test_a_program_that_requires_the_client_gets_one_of_its_own_kind(folder: Path) -> None:
    """As one of CommonJS does that TypeScript made: a Node that requires ES modules isn't needed for it."""
    (folder / "program.cjs").write_text(REQUIRED)
    assert node(folder / "program.cjs").split() == ["index.cjs", "true", "closed"]
