"""Stats, metrics and health over real sockets."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from steadcast.errors import EngineUnavailable
from steadcast.http.context import Limits
from steadcast.http.metrics import LISTED
from tests.support.http_serving import Client, SickEngine, an_event, serving


def metrics(client: Client) -> dict[str, list[Any]]:
    text = client.ask("GET", "/metrics").body.decode()
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a name is given once"
    assert all(name.startswith("steadcast_") for name in names)
    return {family.name: family.samples for family in families}


def test_stats_tell_of_the_hub_the_engine_this_floor_and_the_application() -> None:
    with serving(
        stats=lambda: {"breaker": {"state": "closed", "failures": 0}}, started=5.0, wall=lambda: 7.5
    ) as (
        _,
        client,
    ):
        client.publish("s", an_event(1))
        stats = client.ask("GET", "/v1/stats").json
        assert stats["node"] == "node-1"
        assert stats["protocol"] == 1
        assert (stats["time"], stats["uptime"]) == ("1970-01-01T00:00:07.500000Z", 2.5)
        assert stats["hub"]["counts"]["accepted"] == 1
        assert stats["engine"]["available"] is True
        assert (stats["engine"]["epoch"], stats["engine"]["streams"], stats["engine"]["events"]) == (
            "one",
            1,
            1,
        )
        assert stats["engine"]["statistics"]["counts"]["appended"] == 1
        assert stats["http"]["feeds"] == 0
        assert stats["breaker"] == {"state": "closed", "failures": 0}


def test_stats_and_metrics_are_given_while_the_engine_is_away() -> None:
    engine = SickEngine()
    with serving(engine) as (_, client):
        engine.sick = EngineUnavailable("away")
        stats = client.ask("GET", "/v1/stats")
        assert (stats.status, stats.json["engine"]["available"]) == (200, False)
        assert "steadcast_head" not in metrics(client)


def test_metrics_have_the_counts_of_every_floor_and_the_lanes_of_every_stream() -> None:
    extra = {"retry_queue": {"queue_size": 3, "reasons": {"age": 2}}, "words": "x", "Bad-Name": 1, "on": True}
    with serving(stats=lambda: extra) as (server, client):
        client.publish("s", an_event(1), an_event(2, priority="critical"))
        server.context.hub.counts["trimmed"] += 4
        found = metrics(client)
        assert found["steadcast_accepted"][0].value == 2
        assert found["steadcast_trimmed"][0].value == 4
        assert found["steadcast_retry_queue_queue_size"][0].value == 3
        assert found["steadcast_retry_queue_reasons_age"][0].value == 2
        assert found["steadcast_engine_counts_appended"][0].value == 2
        heads = {(s.labels["stream"], s.labels["lane"]): s.value for s in found["steadcast_head"]}
        assert heads == {("s", "critical"): 1, ("s", "normal"): 1}
        assert not {"steadcast_words", "steadcast_Bad-Name", "steadcast_on"} & set(found)


def test_metrics_stay_small_whatever_the_number_of_streams() -> None:
    with serving() as (_, client):
        for number in range(LISTED + 3):
            client.publish(f"s{number:04}", an_event(1))
        found = metrics(client)
        assert len(found["steadcast_head"]) == LISTED * 2
        assert found["steadcast_streams"][0].value == LISTED + 3
        assert found["steadcast_streams_unlisted"][0].value == 3


def test_metrics_come_as_openmetrics_where_asked_for(client: Client) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = client.ask("GET", "/metrics", headers=accept, documented=False)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_two_servers_in_one_process_count_apart() -> None:
    with serving() as (_, first), serving() as (_, second):
        first.ask("GET", "/v1/streams")
        assert b'route="/v1/streams",' in first.ask("GET", "/metrics").body
        assert b'route="/v1/streams",' not in second.ask("GET", "/metrics").body


def test_health_is_ok_whatever_the_engine_does() -> None:
    engine = SickEngine()
    with serving(engine) as (_, client):
        engine.sick = EngineUnavailable("away")
        engine.slow = True
        assert client.ask("GET", "/healthz").json == {"status": "ok"}


def test_ready_asks_the_engine_by_default_and_says_what_is_wrong() -> None:
    engine = SickEngine()
    with serving(engine, limits=Limits(handler_timeout=0.1)) as (_, client):
        assert client.ask("GET", "/readyz").json == {"status": "ready"}
        engine.sick = EngineUnavailable("the disk is full", code="engine_full")
        answer = client.ask("GET", "/readyz")
        assert (answer.status, answer.json["code"]) == (503, "not_ready")
        assert answer.json["reasons"] == ["engine_full: the disk is full"]
        engine.slow = True
        [reason] = client.ask("GET", "/readyz").json["reasons"]
        assert reason.startswith("timeout:")


def test_ready_asks_what_the_application_says() -> None:
    reasons: list[str] = []

    async def ready() -> list[str]:
        return reasons

    with serving(ready=ready) as (_, client):
        assert client.ask("GET", "/readyz").status == 200
        reasons += ["the breaker is open", "the spool is full"]
        answer = client.ask("GET", "/readyz").json
        assert answer["reasons"] == reasons
        assert answer["detail"] == "the breaker is open; the spool is full"
