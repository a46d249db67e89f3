"""What was measured: samples of single runs, and the rows of medians that they make."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

FIGURES: Final = ("cpu_us", "deliveries_per_s", "p50_ms", "p99_ms", "rss_mib")


class Key(NamedTuple):
    """What a row is about; `per_flush` is the number of events that are published at once."""

    bench: str
    server: str
    variant: str | None
    clients: int | None
    per_flush: int | None


@dataclass(frozen=True)
class Sample:
    """One run: CPU in µs for each delivery, deliveries a second, latencies in ms, memory in MiB."""

    key: Key
    cpu_us: float | None = None
    deliveries_per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    rss_mib: float | None = None


@dataclass
class Table:
    """Collects samples in the order in which their rows were first met."""

    samples: dict[Key, list[Sample]] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        """Keep one."""
        self.samples.setdefault(sample.key, []).append(sample)

    def rows(self) -> list[dict[str, Any]]:
        """Give a row for each key: medians, and the least and the most of each figure as `range`."""
        return [self._row(key, samples) for key, samples in self.samples.items()]

    @staticmethod
    def _row(key: Key, samples: list[Sample]) -> dict[str, Any]:
        row: dict[str, Any] = key._asdict()
        ranges: dict[str, list[float]] = {}
        for figure in FIGURES:
            found = [value for sample in samples if (value := getattr(sample, figure)) is not None]
            row[figure] = _rounded(statistics.median(found)) if found else None
            if found:
                ranges[figure] = [_rounded(min(found)), _rounded(max(found))]
        return row | {"runs": len(samples), "range": ranges}


def _rounded(value: float) -> float:
    """Keep four digits that mean something."""
    return float(f"{value:.4g}")
