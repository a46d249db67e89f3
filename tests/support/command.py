"""The command line as a person or a script runs it: a real process, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.server import BIN


@dataclass
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@dataclass
class Commands:
    """Runs `steadcast` in a folder of its own, with a spool and a home there."""

    folder: Path
    url: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STEADCAST_")}
        own = {"STEADCAST_URL": self.url, "STEADCAST_SPOOL": str(self.spool), "HOME": str(self.folder)}
        return kept | own | {"NO_COLOR": "1", "TERM": "dumb"} | self.env

    def with_env(self, more: dict[str, str]) -> Commands:
        return Commands(self.folder, self.url, self.env | more)

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def __call__(self, *args: str, feed: str = "", timeout: float = 40, **env: str) -> Result:
        done = subprocess.run(
            [BIN / "steadcast", *args],
            input=feed,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environ | env,
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *args: str, told: Path | None = None) -> subprocess.Popen[str]:
        """Start a command; its standard error goes to the file `told`, if there is one."""
        with (told or Path(os.devnull)).open("w") as file:
            return subprocess.Popen(
                [BIN / "steadcast", *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file if told else subprocess.PIPE,
                text=True,
                cwd=self.folder,
                env=self.environ,
            )
