"""Hunts every mutant and tells which seed caught it, and how: `python -m tests.sim.hunt`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.sim.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
WITHIN = 200
"""Seeds; what takes more than a tenth of what `make test` plays is caught by luck."""


def hunt(name: str, within: int = WITHIN, tries: int = 8) -> str:
    """Play seeds on one mutant, in a process of its own; gives its exit status, and what was said."""
    few = ["--seeds", within, "--jobs", 1, "--stop", "--stories", 1, "--tries", tries]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", *map(str, few), "--mutant", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"exit {done.returncode}\n{done.stdout}{done.stderr}"


def story_in(said: str) -> str:
    """Take the story out of what was said; empty where there is none."""
    lines = said.splitlines()
    begins = [at for at, line in enumerate(lines) if ", shrunk: " in line]
    if not begins:
        return ""
    ends = next((at for at in range(begins[0], len(lines)) if not lines[at]), len(lines))
    return "\n".join(lines[begins[0] : ends])


def main() -> int:
    escaped = 0
    for name, mutant in MUTANTS.items():
        story = story_in(hunt(name, tries=15))
        escaped += not story
        print(f"{name} ({mutant.module}): {'caught' if story else 'ESCAPED'}\n{story}\n", flush=True)
    print(f"mutants {len(MUTANTS)} caught {len(MUTANTS) - escaped}")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
