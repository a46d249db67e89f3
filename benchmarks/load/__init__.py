"""Building the load, and driving it: one line in, one line of JSON out."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

from benchmarks.machine import CORE_OF_LOAD, pinned

if TYPE_CHECKING:
    from benchmarks.events import Template

HERE: Final = Path(__file__).parent
FLAGS: Final = ["-O2", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]


class Failed(Exception):
    """A run that isn't a figure: a wrong count, a wrong order, a server or a load that ended."""


def build(folder: Path) -> None:
    """Build `load` and `raw` into `folder`; raises CalledProcessError."""
    parts = sorted(path for path in HERE.glob("*.c") if path.name != "raw.c")
    for name, sources in {"load": parts, "raw": [HERE / "raw.c"]}.items():
        subprocess.run([*_compiler(), *FLAGS, "-o", folder / name, *sources], check=True)


def _compiler() -> list[str]:
    """Give the system's compiler, else the one that `make setup` took from PyPI for want of it."""
    return ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]


class Load:
    """The process that subscribes, publishes, counts and times; pinned away from the server."""

    def __init__(self, tools: Path, dialect: str, port: int, stream: str) -> None:
        """Speak `dialect` to the server on `port`; `tools` is where `build` put it."""
        self._tools = tools
        self._command = [str(tools / "load"), dialect, str(port), stream]

    def __enter__(self) -> Self:
        """Start it."""
        pipe = subprocess.PIPE
        with pinned(CORE_OF_LOAD):
            self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        """End it; its connections are reset."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(BrokenPipeError):  # a command that it didn't live to read
                _pipe(pipe).close()

    def say(self, command: str) -> dict[str, Any]:
        """Give a command and its answer; raises `Failed` with what the load says."""
        with contextlib.suppress(BrokenPipeError):  # its end is told by its answer
            _pipe(self._process.stdin).write(command + "\n")
            _pipe(self._process.stdin).flush()
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise Failed(f"{command!r}: {_pipe(self._process.stderr).read().strip()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def template(self, template: Template, count: int, answers: int) -> None:
        """Publish `count` events at a time from now on; `answers` come back for each such flush."""
        path = self._tools / "template"
        path.write_bytes(template(count))
        events = self.say(f"template {answers} {path}")["events"]
        if events != count:
            raise Failed(f"a template of {events} events instead of {count}")

    def run(self, command: str) -> dict[str, Any]:
        """Run something that publishes, and check that every client got each event once and in order."""
        return check(self.say(command))


def check(report: dict[str, Any]) -> dict[str, Any]:
    """Give the report back; raises `Failed` where an event is missing, doubled or out of order."""
    expected = report["expected"]
    counts = {report["least"], report["most"]} if report["clients"] else {expected}
    if counts != {expected} or report["events"] != expected * report["clients"] or report["disorder"]:
        raise Failed(f"wrong counts: {report}")
    return report


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise Failed("the load wasn't started")
    return pipe
