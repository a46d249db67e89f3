"""What stands in deploy/: each file is read, and names only metrics and settings that there are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from steadcast.app import Steadcast
from steadcast.config import FIELDS, Settings
from steadcast.core.breaker import FAILURES
from steadcast.engines.jetstream_url import parse_url
from steadcast.http.context import Limits
from tests.engine_backends import nats_url
from tests.engine_nats import BINARY
from tests.support.ports import free_port
from tests.support.server import BIN, Server, event, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
METRIC = re.compile(r"\bsteadcast_[a-z_]+")
AFTER_A_FIRST_TIME = {"steadcast_watch_restarts_total"}
"""Counters that are there once they counted; the hub's own source has them."""


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Give the names that a node on JetStream tells Prometheus."""
    with Server(tmp_path_factory.mktemp("server"), engine=nats_url()) as server:
        assert server.publish("orders", event(1), event(1)).status_code == 200
        return set(re.findall(r"^(steadcast_\w+)", server.get("/metrics").text, re.MULTILINE))


def expressions(name: str) -> list[str]:
    if name == "alerts.yaml":
        groups: Any = yaml.safe_load((DEPLOY / name).read_text())["groups"]
        return [rule["expr"] for group in groups for rule in group["rules"]]
    board: Any = json.loads((DEPLOY / name).read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("name", ["alerts.yaml", "grafana.json"])
def test_boards_and_alerts_ask_for_metrics_that_there_are(name: str, metrics: set[str]) -> None:
    asked = {metric for expression in expressions(name) for metric in METRIC.findall(expression)}
    assert len(asked) > 5
    assert asked - metrics - AFTER_A_FIRST_TIME == set()
    hub = "".join(path.read_text() for path in (DEPLOY.parent / "src/steadcast/hub").glob("*.py"))
    for counter in AFTER_A_FIRST_TIME:
        assert f'counts["{counter.removeprefix("steadcast_").removesuffix("_total")}"]' in hub


def test_the_board_adds_up_what_the_lanes_of_a_stream_keep() -> None:
    """Every node tells of the whole log, so nodes are no sum; lanes are."""
    kept = [each for each in expressions("grafana.json") if "steadcast_retained_" in each]
    assert kept == ["sum by (stream) (max by (stream, lane) (steadcast_retained_bytes))"]


def test_every_alert_says_how_bad_it_is_and_what_it_means() -> None:
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert rule["annotations"]["summary"].endswith(".")


async def test_the_alert_that_the_log_is_away_holds_until_the_log_is_back() -> None:
    """A log that hangs is tried for seconds, time and again: half open is no good news yet."""
    groups: Any = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    (expression,) = [
        rule["expr"] for group in groups for rule in group["rules"] if rule["alert"] == "SteadcastLogAway"
    ]
    metric, value = expression.split(" == ")
    async with Steadcast(engine="memory:") as cast:
        breaker, transport = cast.broadcaster.breaker, httpx.ASGITransport(cast.http)

        async def fires() -> bool:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                told = (await client.get("/metrics")).text
            (found,) = re.findall(rf"^{metric} (\S+)$", told, re.MULTILINE)
            return float(found) == float(value)

        assert not await fires()
        for _ in range(FAILURES):
            permit = breaker.allow(0.0)
            assert permit is not None
            breaker.failed(0.0, permit)
        assert breaker.state.value == "open"
        assert await fires()
        probe = breaker.allow(100.0)
        assert probe is not None
        assert breaker.state.value == "half-open"
        assert await fires(), "while it is tried"
        breaker.succeeded(100.0, probe)
        assert not await fires()


@pytest.mark.parametrize("place", ["deploy/nginx.conf", "docs/operations.md"])
def test_an_nginx_lets_through_what_a_node_takes(place: str) -> None:
    """By itself it refuses what is over 1 MiB."""
    sizes = re.findall(r"client_max_body_size (\d+)m;", (DEPLOY.parent / place).read_text())
    assert [int(size) * 1024 * 1024 > Limits().body for size in sizes] == [True]


def test_the_compose_file_has_three_servers_and_nodes_that_name_them() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    nats = {name for name, each in services.items() if "nats" in each.get("image", "")}
    nodes = [each for each in services.values() if "build" in each]
    assert len(nats) == 3
    assert len(nodes) == 2
    for node in nodes:
        options = parse_url(node["environment"]["STEADCAST_ENGINE"])
        assert {server.split("//")[1].split(":")[0] for server in options.servers} == nats
        assert (options.replicas, options.sync) == (3, "always")
        assert node["read_only"] is True
        assert (DEPLOY / node["build"]["context"] / node["build"]["dockerfile"]).exists()
    assert (DEPLOY / compose["configs"]["nats"]["file"]).exists()


@pytest.mark.parametrize("name", ["compose.yaml", "Dockerfile", "steadcast.service"])
def test_settings_that_are_named_are_settings(name: str) -> None:
    fields = {f"STEADCAST_{field.upper()}" for field in FIELDS} | {"STEADCAST_SPOOL"}
    assert set(re.findall(r"STEADCAST_[A-Z_]+", (DEPLOY / name).read_text())) <= fields


def test_the_image_runs_without_rights_and_what_it_needs_to_write_is_a_volume() -> None:
    steps = re.split(r"(?<!\\)\n", (DEPLOY / "Dockerfile").read_text())
    last = max(index for index, step in enumerate(steps) if step.startswith("FROM "))
    final = [step.split(maxsplit=1) for step in steps[last:] if step and not step.startswith("#")]
    named: dict[str, str] = dict(final)
    assert named["USER"] == "10001"
    assert json.loads(named["VOLUME"]) == ["/data", "/tmp"]  # noqa: S108 - a volume of the image
    assert json.loads(named["ENTRYPOINT"])[:2] == ["steadcast", "serve"]
    froms = [step for step in steps if step.startswith("FROM ")]
    assert all(re.match(r"FROM [\w./-]+:[\w.-]+", step) for step in froms), "images are pinned"


def steps_of(name: str) -> dict[str, str]:
    """Give the last stage's steps of a Dockerfile, on a line each; of several alike the last."""
    text = (DEPLOY / name).read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    return dict(line.split(maxsplit=1) for line in text.splitlines()[1:] if line and line[0] not in "# ")


def test_the_image_installs_extras_that_there_are() -> None:
    project: Any = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    [extras] = re.findall(r"steadcast\[([\w,]+)\]", (DEPLOY / "Dockerfile").read_text())
    assert set(extras.split(",")) == set(project["project"]["optional-dependencies"])


def test_the_images_command_serves_and_its_health_check_tells(tmp_path: Path) -> None:
    """Run both here, as the image has them but for the port."""
    steps, port = steps_of("Dockerfile"), free_port()
    (tmp_path / "tmp").mkdir()
    own = dict(re.findall(r"(STEADCAST_\w+)=(\S+)", steps["ENV"]))
    assert own["STEADCAST_SPOOL"] == "/data/spool"
    env = os.environ | own | {"STEADCAST_SPOOL": str(tmp_path / "spool"), "STEADCAST_TOKEN": "secret-token-1"}
    command = [word.replace("8765", str(port)) for word in json.loads(steps["ENTRYPOINT"])]
    check = json.loads(steps["HEALTHCHECK"].partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    probe = [sys.executable, "-c", check[2].replace(":8765/", f":{port}/")]

    def healthy() -> bool:
        return subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode == 0

    assert not healthy()
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [BIN / command[0], *command[1:]], cwd=tmp_path, env=env, stdout=log, stderr=log
        )
    try:
        wait_until(healthy, timeout=60, what="the image's health check passes")
    finally:
        server.terminate()
        assert server.wait(30) == 0
    assert (tmp_path / "steadcast.db").exists()
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert told, "logs are JSON"


def test_nats_takes_its_configuration() -> None:
    done = subprocess.run(
        [BINARY, "-t", "-c", DEPLOY / "nats.conf"],
        env=os.environ | {"SERVER_NAME": "n1"}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "steadcast.service").read_text()
    found = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert found["DynamicUser"] == "yes"
    assert int(found["TimeoutStopSec"]) > Settings().drain_limit
    verify = shutil.which("systemd-analyze")
    if verify is None:
        return  # only Linux with systemd has it; the settings above are checked everywhere
    (tmp_path / "steadcast.service").write_text(
        unit.replace("/opt/steadcast/bin/steadcast serve", shutil.which("true") or "/bin/true")
    )
    done = subprocess.run(
        [verify, "verify", "--man=no", tmp_path / "steadcast.service"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "steadcast.service" not in done.stderr, done.stderr
