"""The fenced blocks of a document, and a story that runs them in their order against a real server.

HTML comments directly above a block say how it is run; a reader of the page doesn't see them:

| comment | meaning |
|---|---|
| `not run: REASON` | it can't be run in a test |
| `runs until: TEXT` | it goes on by itself; it is ended once it printed the text |
| `serves: URL` | it goes on in the background until the document ends; the next block waits for the URL |
| `prints: TEXT` | its output has the text |
| `exits: CODE` | its exit code, where that isn't 0 |
| `file: NAME` | it is a file for the blocks that follow, and isn't run by itself |

Port 8765 in a block is the test's server; port 8000 is another free port, the same one in the whole document.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from steadcast.config import load
from tests.support.ports import free_port
from tests.support.server import BIN, Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT: Final = Path(__file__).parents[2]
RUN_TS: Final = Path(__file__).with_name("run_ts.mjs")
PATIENCE: Final = 60.0
MARKS: Final = frozenset({"not run", "runs until", "serves", "prints", "exits", "file", "measured"})
PLAIN: Final = frozenset({"text"})
"""Languages of blocks that hold nothing to run."""

_FENCE = re.compile(r"^```(\S*)\s*$")
_MARK = re.compile(r"<!-- ([a-z ]+): (.+?) -->")


@dataclass(frozen=True)
class Snippet:
    """One block: where its code begins, what it is written in, and what stands above it."""

    document: str
    line: int
    language: str
    code: str
    marks: Mapping[str, str]

    @property
    def where(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[str]:
    """Name every page that a user reads; the TypeScript client's has its own test."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "conformance").glob("*.md")]
    return sorted(page.relative_to(ROOT).as_posix() for page in pages)


def snippets(document: str) -> list[Snippet]:
    """Take the blocks out of a document."""
    return list(_parse(document, (ROOT / document).read_text("utf-8").splitlines()))


def _parse(document: str, lines: list[str]) -> Iterator[Snippet]:
    marks: dict[str, str] = {}
    numbered = iter(enumerate(lines, 1))
    for number, line in numbered:
        if fence := _FENCE.match(line):
            code: list[str] = []
            for _, text in numbered:
                if text.rstrip() == "```":
                    break
                code.append(text)
            else:
                raise AssertionError(f"{document}:{number}: the block has no end")
            yield Snippet(document, number + 1, fence[1], "\n".join(code) + "\n", marks)
            marks = {}
        elif found := _MARK.fullmatch(line.strip()):
            assert found[1] in MARKS, f"{document}:{number}: no mark is called {found[1]!r}"
            marks = marks | {found[1]: found[2]}
        else:
            marks = {}


@dataclass
class Story:
    """A document's blocks, run one after the other in one folder, with a home of its own."""

    server: Server
    folder: Path
    other_port: int = field(default_factory=free_port)
    serving: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def tell(self, snippet: Snippet) -> None:
        """Run a block; fails in words that name its place."""
        if "not run" in snippet.marks or snippet.language in PLAIN:
            return
        code = self._placed(snippet.code)
        if name := snippet.marks.get("file"):
            (self.folder / name).write_text(code)
            return
        match snippet.language:
            case "json":
                json.loads(code)
            case "toml":
                tomllib.loads(code)
                (self.folder / "settings.toml").write_text(code)
                load(self.folder / "settings.toml")
            case "python" | "sh" | "ts":
                self._run(snippet, self._command(snippet, code))
            case _:
                raise AssertionError(f"{snippet.where}: nothing runs {snippet.language or 'a bare block'}")

    def end(self) -> None:
        """End what serves in the background."""
        for process in self.serving:
            _end(process)

    def _command(self, snippet: Snippet, code: str) -> list[str]:
        suffix = {"python": "py", "sh": "sh", "ts": "ts"}[snippet.language]
        script = self.folder / f"line_{snippet.line}.{suffix}"
        script.write_text(code)
        if snippet.language == "python":
            return [sys.executable, "-W", "error", str(script)]
        if snippet.language == "sh":
            return ["sh", "-e", str(script)]
        modules = self.folder / "node_modules"
        if not modules.exists():
            modules.symlink_to(ROOT / "node_modules")
        return ["sh", str(ROOT / "scripts" / "node"), "node", str(RUN_TS), str(script)]

    def _run(self, snippet: Snippet, command: list[str]) -> None:
        output = self.folder / f"line_{snippet.line}.out"
        with output.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            self._watch(snippet, process, output)
        finally:
            if process not in self.serving:
                _end(process)

    def _watch(self, snippet: Snippet, process: subprocess.Popen[bytes], output: Path) -> None:
        marks = snippet.marks
        if url := marks.get("serves"):
            self.serving.append(process)
            _until(lambda: _listens(self._placed(url)), process, f"{snippet.where} serves {url}", output)
        elif text := marks.get("runs until"):
            _until(lambda: text in output.read_text(), process, f"{snippet.where} prints {text!r}", output)
        else:
            code = process.wait(PATIENCE)
            wanted = int(marks.get("exits", "0"))
            assert code == wanted, f"{snippet.where} exits {code}, not {wanted}:\n{output.read_text()}"
        told = output.read_text()
        assert marks.get("prints", "") in told, f"{snippet.where} doesn't print {marks['prints']!r}:\n{told}"

    def _placed(self, text: str) -> str:
        ports = {"8765": self.server.port, "8000": self.other_port}
        return re.sub(r"(?<!\d)(8765|8000)(?!\d)", lambda found: str(ports[found[1]]), text)

    def _environment(self) -> dict[str, str]:
        (self.folder / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STEADCAST_")}
        return kept | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            "STEADCAST_URL": self.server.url,
            "STEADCAST_SPOOL": self.server.env["STEADCAST_SPOOL"],
        }


def _until(
    condition: Callable[[], object], process: subprocess.Popen[bytes], what: str, output: Path
) -> None:
    def met() -> bool:
        if condition():
            return True
        assert process.poll() is None, f"{what}: it ended before:\n{output.read_text()}"
        return False

    try:
        wait_until(met, timeout=PATIENCE, what=what)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{output.read_text()}") from error


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname or "", parts.port or 80)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a block and what it started: they are a process group of their own."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
