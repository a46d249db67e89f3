"""Look the locked dependencies up in the lists of known vulnerabilities: OSV for Python, npm's for the web.

Ends with 1 where one is found or a lock can't be read. Where a list can't be reached it says so, and that
counts as nothing found: a machine without a network must still be able to check everything else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOUND = 1


def main() -> int:
    """Audit both locks, and say what was found."""
    # Both, whatever the first one says.
    return max(audit_python(*sys.argv[1:]), audit_web())


def audit_python(*more: str) -> int:
    """Audit uv.lock; `more` goes to uv, for tests."""
    uv = ROOT / ".venv" / "bin" / "uv"
    command = [uv, "audit", "--frozen", "--preview-features", "audit-command", *more]
    done = run(*command, UV_HTTP_RETRIES="0", UV_HTTP_TIMEOUT="10")
    if done.returncode > FOUND and "error sending request" in done.stderr:
        return unreachable("the Python dependencies")
    sys.stdout.write(done.stdout + done.stderr)
    return min(done.returncode, FOUND)


def audit_web() -> int:
    """Audit package-lock.json."""
    node = ["sh", ROOT / "scripts" / "node", "npm", "audit", "--package-lock-only", "--json"]
    done = run(*node, npm_config_fetch_retries="0", npm_config_fetch_timeout="10000")
    try:
        found = json.loads(done.stdout)["vulnerabilities"]
    except (ValueError, KeyError):
        return unreachable("the web dependencies")
    for name, each in sorted(found.items()):
        titles = {via["title"] for via in each["via"] if isinstance(via, dict)}
        why = "; ".join(sorted(titles)) or "by what it needs"
        sys.stdout.write(f"{name} {each['range']}: {each['severity']}: {why}\n")
    sys.stdout.write(f"Found {len(found)} vulnerable packages among the web dependencies\n")
    return FOUND if found else 0


def unreachable(what: str) -> int:
    """Say that a list can't be reached."""
    sys.stdout.write(f"The list of known vulnerabilities can't be reached: {what} are not looked up.\n")
    return 0


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository."""
    return subprocess.run(  # noqa: S603 - the commands above
        command, cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
