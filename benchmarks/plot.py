"""The plot: CPU for each delivery, by events per flush and by clients, on logarithmic scales, as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COLOURS: Final = {
    "steadcast": "#0b6e4f",
    "python-socketio": "#b5651d",
    "node-socket.io": "#7a4fbf",
    "nats-server": "#2b6cb0",
    "mosquitto": "#a83279",
    "raw-c": "#777777",
}
WIDTH: Final = 420
HEIGHT: Final = 320
LEFT: Final = 60
TOP: Final = 50
GAP: Final = 90
NAMES: Final = 150

Line = list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """A picture of lines in one frame."""

    title: str
    below: str
    left: float
    lines: dict[str, Line]

    def ticks(self) -> tuple[list[float], list[float]]:
        """Give the values on both axes."""
        across = sorted({x for line in self.lines.values() for x, _ in line})
        values = [y for line in self.lines.values() for _, y in line]
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return across, [10.0**power for power in range(low, max(high, low + 1) + 1)]


def plot(rows: list[dict[str, Any]]) -> str:
    """Draw the fan-out rows."""
    fanout = [row for row in rows if row["bench"] == "fanout" and row["variant"] is None]
    most = max(row["clients"] for row in fanout if row["per_flush"] != 10)  # noqa: PLR2004 - the size that grows
    panels = [
        Panel(f"{most} clients", "events per flush", LEFT, _lines(fanout, "per_flush", clients=most)),
        Panel("10 events per flush", "clients", LEFT + WIDTH + GAP, _lines(fanout, "clients", per_flush=10)),
    ]
    width, height = LEFT + 2 * WIDTH + GAP + NAMES, TOP + HEIGHT + 60
    title = "Server CPU for each delivery, µs (lower is better)"
    size = f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="13"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="20" font-size="15" fill="#222">{title}</text>',
            *(part for panel in panels for part in _panel(panel)),
            "</svg>\n",
        ]
    )


def _lines(rows: Iterable[dict[str, Any]], across: str, **only: int) -> dict[str, Line]:
    found: dict[str, Line] = {}
    for row in rows:
        if all(row[name] == value for name, value in only.items()):
            found.setdefault(row["server"], []).append((row[across], row["cpu_us"]))
    return {server: sorted(line) for server, line in found.items()}


def _scale(values: list[float], low: float, high: float) -> tuple[float, float]:
    """Give offset and factor that lay log10 of `values` between two pixels."""
    first, last = math.log10(values[0]), math.log10(values[-1])
    factor = (high - low) / ((last - first) or 1)
    return low - first * factor, factor


def _panel(panel: Panel) -> Iterator[str]:
    across, up = panel.ticks()
    x0, fx = _scale(across, panel.left + 20, panel.left + WIDTH - 20)
    y0, fy = _scale(up, TOP + HEIGHT, TOP)
    middle = panel.left + WIDTH / 2
    yield f'<text x="{middle}" y="{TOP - 8}" text-anchor="middle" fill="#222">{panel.title}</text>'
    yield f'<text x="{middle}" y="{TOP + HEIGHT + 42}" text-anchor="middle" fill="#555">{panel.below}</text>'
    for value in up:
        y = y0 + fy * math.log10(value)
        yield f'<path d="M{panel.left} {y:.1f}h{WIDTH}" stroke="#ddd"/>'
        yield f'<text x="{panel.left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{value:g}</text>'
    for value in across:
        x = x0 + fx * math.log10(value)
        yield f'<text x="{x:.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle" fill="#555">{value:g}</text>'
    ends: list[tuple[float, str]] = []
    for server, line in panel.lines.items():
        points = [(x0 + fx * math.log10(x), y0 + fy * math.log10(y)) for x, y in line]
        yield from _line(points, COLOURS[server], 3 if server == "steadcast" else 1.8)
        ends.append((points[-1][1], server))
    if panel.left > LEFT:
        yield from _names(ends, panel.left + WIDTH + 8)


def _line(points: Line, colour: str, width: float) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'


def _names(ends: list[tuple[float, str]], x: float) -> Iterator[str]:
    """Write each server's name at its line's end, and none over another."""
    free = 0.0
    for end, server in sorted(ends):
        y = max(end + 4, free)
        free = y + 16
        yield f'<text x="{x}" y="{y:.1f}" fill="{COLOURS[server]}">{server}</text>'
