"""The page says what was measured, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from benchmarks import engines, plot, report
from benchmarks.rows import Key, Sample, Table


def results() -> dict[str, Any]:
    table = Table()
    for server, cost in {"steadcast": 0.5, "node-socket.io": 6.0, "nats-server": 0.4}.items():
        for size in (1, 10):
            for noise in (1.0, 1.1, 0.9):
                key = Key("fanout", server, None, 1000, size)
                table.add(Sample(key, cpu_us=cost * noise, deliveries_per_s=1000.0))
    return {"rows": table.rows()}


def test_a_row_is_the_median_with_its_noise() -> None:
    row = results()["rows"][0]
    assert (row["cpu_us"], row["runs"], row["range"]["cpu_us"]) == (0.5, 3, [0.45, 0.55])
    assert row["p99_ms"] is None


def test_a_peer_stands_with_its_multiple_of_our_cost() -> None:
    assert "| node-socket.io | 6 (5.4–6.6) **12×** |" in report.fanout(results())  # noqa: RUF001 - as it is shown


def test_where_a_peer_is_better_is_said() -> None:
    said = report.better(results())
    assert "nats-server" in said
    assert "node-socket.io" not in said


def test_an_aim_that_was_missed_is_called_so() -> None:
    said = report.aims(results())
    assert "| 10 per flush, 1,000 clients | ≤ 1/10 of node-socket.io | 1/12 | met |" in said
    assert "| 10 per flush, 1,000 clients | ≤ 1/2 of nats-server | 1.25 × | **missed** |" in said  # noqa: RUF001 - as it is shown


def test_the_plot_is_a_picture_with_a_line_for_each_server() -> None:
    picture = ET.fromstring(plot.plot(results()["rows"]))  # noqa: S314 - written just now
    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 6


def test_the_page_and_the_picture_are_those_of_the_latest_figures(root: Path) -> None:
    figures = root / "benchmarks" / "results" / "latest.json"
    latest = json.loads(figures.read_text()) if figures.exists() else None
    page = (root / "docs" / "performance.md").read_text()
    assert report.render(page, latest) == page
    picture = root / "docs" / "pictures" / "performance.svg"
    assert picture.exists() == (latest is not None)
    assert latest is None or picture.read_text() == plot.plot(latest["rows"])


def test_every_part_that_can_be_written_stands_on_the_page(root: Path) -> None:
    page = (root / "docs" / "performance.md").read_text()
    assert sorted(part for _, part, _ in report.PART.findall(page)) == sorted(report.PARTS)


def test_the_page_on_scale_is_that_of_the_latest_figures_of_the_engines(root: Path) -> None:
    latest = json.loads((root / "benchmarks" / "results" / "engines.json").read_text())
    page = (root / "docs" / "scale.md").read_text()
    assert engines.rendered(page, latest) == page
    assert {row["engine"] for row in latest["rows"]} == set(engines.ENGINES)
