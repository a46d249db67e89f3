"""The tables of `docs/performance.md`: each stands between two comments, written from the rows alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Row = dict[str, Any]
Rows = list[Row]

DASH: Final = "\N{EN DASH}"
TIMES: Final = "\N{MULTIPLICATION SIGN}"
NOT_YET: Final = "Not measured yet: `make bench`."
PART: Final = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(
    page: str,
    results: dict[str, Any] | None,
    parts: Mapping[str, Callable[[dict[str, Any]], str]] | None = None,
    not_yet: str = NOT_YET,
) -> str:
    """Give the page with every measured part written anew; raises KeyError for a part nobody knows.

    `parts` are those of `docs/performance.md` where nothing else is said.
    """

    def write(found: re.Match[str]) -> str:
        part = (parts or PARTS)[found[2]]
        return f"{found[1]}\n{part(results) if results else not_yet}\n\n{found[3]}"

    return PART.sub(write, page)


def label(row: Row) -> str:
    """Name a row's server with its variant."""
    return f"{row['server']} ({row['variant']})" if row["variant"] else str(row["server"])


def number(value: float | None) -> str:
    """Write a figure with three digits that mean something."""
    if value is None:
        return DASH
    if abs(value) >= 100:  # noqa: PLR2004 - three digits before the point
        return f"{value:,.0f}"
    return f"{value:.3g}"


def noisy(row: Row | None, figure: str) -> str:
    """Write a median with the least and the most that was measured."""
    if row is None or row[figure] is None:
        return DASH
    low, high = row["range"][figure]
    return (
        f"{number(row[figure])} ({number(low)}{DASH}{number(high)})" if low != high else number(row[figure])
    )


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Write a table; the first column names the line."""
    columns = list(head)
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, rule, *lines])


def _of(results: dict[str, Any], bench: str) -> Rows:
    return [row for row in results["rows"] if row["bench"] == bench]


def _find(rows: Rows, **wanted: Any) -> Row | None:
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def _ratio(row: Row | None, own: Row | None) -> str:
    """Say how often a row's CPU holds ours."""
    if row is None or own is None or row is own or not own["cpu_us"] or row["cpu_us"] is None:
        return ""
    return f" **{number(row['cpu_us'] / own['cpu_us'])}{TIMES}**"


def fanout(results: dict[str, Any]) -> str:
    """Write a table for each number of clients: CPU for each delivery, noise, ratio to Steadcast's."""
    rows = _of(results, "fanout")
    counts = sorted({row["clients"] for row in rows})
    return "\n\n".join(f"{count:,} clients:\n\n{_fanout(rows, count)}" for count in counts)


def _fanout(rows: Rows, clients: int) -> str:
    here = [row for row in rows if row["clients"] == clients]
    sizes = sorted({row["per_flush"] for row in here})
    own = {size: _find(here, server="steadcast", variant=None, per_flush=size) for size in sizes}
    lines = []
    for name in dict.fromkeys(label(row) for row in here):
        mine = {row["per_flush"]: row for row in here if label(row) == name}
        cells = [noisy(mine.get(size), "cpu_us") + _ratio(mine.get(size), own[size]) for size in sizes]
        lines.append([name, *cells])
    return table(["µs for each delivery", *(f"{size} per flush" for size in sizes)], lines)


def _plain(bench: str, columns: dict[str, str]) -> Callable[[dict[str, Any]], str]:
    """Give a writer of one line for each row; `columns` are figures and their headings."""

    def write(results: dict[str, Any]) -> str:
        rows = _of(results, bench)
        lines = [
            [
                label(row),
                *(noisy(row, figure) for figure in columns),
            ]
            for row in rows
        ]
        return table(["", *columns.values()], lines)

    return write


def publish(results: dict[str, Any]) -> str:
    """Write events a second by the size of a batch, and what one costs."""
    rows = _of(results, "publish")
    sizes = sorted({row["per_flush"] for row in rows})
    names = list(dict.fromkeys(label(row) for row in rows))
    parts = []
    for figure, title in (
        ("deliveries_per_s", "events a second"),
        ("cpu_us", "CPU µs for each event"),
        ("p99_ms", "ms until the answer, p99"),
    ):
        lines = []
        for name in names:
            mine = {row["per_flush"]: row for row in rows if label(row) == name}
            lines.append([name, *(noisy(mine.get(size), figure) for size in sizes)])
        parts.append(table([title, *(f"{size} at a time" for size in sizes)], lines))
    return "\n\n".join(parts)


def aims(results: dict[str, Any]) -> str:
    """Hold the figures against what was aimed at."""
    rows = _of(results, "fanout")
    most = max((row["clients"] for row in rows if row["per_flush"] != 10), default=0)  # noqa: PLR2004 - see plot
    lines = []
    for size, server, factor in AIMS:
        own = _find(rows, server="steadcast", variant=None, clients=most, per_flush=size)
        peer = _find(rows, server=server, variant=None, clients=most, per_flush=size)
        lines.append(_aim(f"{size} per flush, {most:,} clients", server, factor, own, peer))
    paced = _of(results, "paced")
    own = _find(paced, server="steadcast", variant=None)
    peer = _find(paced, server="nats-server", variant=None)
    lines.append(_aim("paced", "nats-server", 2, own, peer))
    return table(["CPU for each delivery", "aim", "measured", ""], lines)


AIMS: Final = (
    (1, "raw-c", 1 / 1.7),
    (1, "python-socketio", 12),
    (10, "raw-c", 1 / 1.7),
    (10, "python-socketio", 90),
    (10, "node-socket.io", 10),
    (10, "nats-server", 2),
)
"""Events per flush, a peer, and how many times our CPU for a delivery the peer shall use at least."""


def _aim(what: str, server: str, factor: float, own: Row | None, peer: Row | None) -> list[str]:
    aim = f"≤ 1/{number(factor)} of {server}" if factor >= 1 else f"≤ {number(1 / factor)} {TIMES} {server}"
    if own is None or peer is None:
        return [what, aim, DASH, "not measured"]
    share = peer["cpu_us"] / own["cpu_us"]
    measured = f"1/{number(share)}" if share >= 1 else f"{number(1 / share)} {TIMES}"
    return [what, aim, measured, "met" if share >= factor else "**missed**"]


def better(results: dict[str, Any]) -> str:
    """List every figure in which a peer beats Steadcast (the floors, which do less, left out)."""
    found = []
    for row in results["rows"]:
        if row["server"] in {"steadcast", "raw-c", "sqlite"} or row["bench"] in {"start", "latency"}:
            continue
        own = _own(results["rows"], row)
        if own and row["cpu_us"] is not None and row["cpu_us"] < own["cpu_us"]:
            what = [row["bench"], f"{row['clients']:,} clients", f"{row['per_flush'] or DASH} per flush"]
            found.append([label(row), *what, number(row["cpu_us"]), number(own["cpu_us"])])
    if not found:
        return "None in this run."
    return table(["", "bench", "clients", "flush", "its µs", "Steadcast's"], found)


def _own(rows: Rows, row: Row) -> Row | None:
    same = {name: row[name] for name in ("bench", "clients", "per_flush")}
    variants = [row["variant"], None, "http"]
    candidates = (_find(rows, server="steadcast", variant=variant, **same) for variant in variants)
    return next((found for found in candidates if found), None)


def conditions(results: dict[str, Any]) -> str:
    """Say on what, with what and when it was measured, and what failed."""
    machine, versions = results["machine"], results["versions"]
    where = f"{machine['cores']} cores ({machine['architecture']}), {machine['system']}"
    how = f"Python {machine['python']}; medians of {results['runs']}, in {results['minutes']:.0f} minutes"
    lines = [
        f"Measured on {results['date']}: {where}, {how}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    lines += ["All figures: [`benchmarks/results/latest.json`](../benchmarks/results/latest.json)."]
    lines += [f"Failed, and so without a row: {failure}" for failure in results["failures"]]
    return "\n\n".join(lines)


def picture(_results: dict[str, Any]) -> str:
    """Show the plot."""
    return "![CPU time for each delivery, by server](pictures/performance.svg)"


PARTS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "conditions": conditions,
    "picture": picture,
    "aims": aims,
    "better": better,
    "fanout": fanout,
    "publish": publish,
    "paced": _plain(
        "paced",
        {
            "cpu_us": "µs for each delivery",
            "deliveries_per_s": "deliveries/s",
            "p50_ms": "p50 ms",
            "p99_ms": "p99 ms",
        },
    ),
    "storm": _plain(
        "storm",
        {
            "cpu_us": "µs for each delivery",
            "deliveries_per_s": "deliveries/s",
            "p50_ms": "ms until a client is live again, p50",
            "p99_ms": "p99",
            "rss_mib": "memory, MiB more",
        },
    ),
    "stall": _plain(
        "stall",
        {"cpu_us": "µs for each delivery", "p99_ms": "p99 ms", "rss_mib": "memory, MiB more"},
    ),
    "idle": _plain(
        "idle",
        {
            "rss_mib": "MiB for 1,000 clients",
            "cpu_us": "µs for each connect",
            "deliveries_per_s": "connects/s",
        },
    ),
    "start": _plain("start", {"p50_ms": "ms until ready", "rss_mib": "memory, MiB"}),
    "latency": _plain("latency", {"p50_ms": "p50 ms", "p99_ms": "p99 ms"}),
}
