"""`steadcast dead`, as real processes: looked at, re-driven and dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steadcast.core.breaker import State
from steadcast.errors import SteadcastError
from tests.support.command import Commands, Result
from tests.support.delivery import Place, serving, until
from tests.support.ports import free_port


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """Serve with two dead events, `a` and `b`."""
    async with serving(max_retries=1) as running:
        running.engine.fail_appends()
        for name in ("a", "b"):
            with pytest.raises(SteadcastError, match="given up"):
                await running.cast.publish("orders", type="order.paid", id=name, data={"n": 1})
        running.engine.heal()
        await until(lambda: running.cast.broadcaster.breaker.state is State.CLOSED, "the engine is found")
        yield running


async def run(place: Place, folder: Path, *args: str) -> Result:
    return await asyncio.to_thread(Commands(folder, place.url), "dead", *args)


async def listed(place: Place, folder: Path) -> dict[str, str]:
    return {each["event"]["id"]: each["id"] for each in (await run(place, folder, "list", "--json")).objects}


async def test_dead_events_are_listed_for_people_and_programs(place: Place, tmp_path: Path) -> None:
    found = await run(place, tmp_path, "list")
    assert found.code == 0
    assert len(found.lines) == 2
    for part in ("exhausted after 2", "orders", "order.paid", "  a  ", "engine_unavailable"):
        assert part in found.lines[0]
    as_json = await run(place, tmp_path, "list", "--json")
    assert [(each["event"]["id"], each["reason"], each["event"]["data"]) for each in as_json.objects] == [
        ("a", "exhausted", {"n": 1}), ("b", "exhausted", {"n": 1}),
    ]  # fmt: skip


async def test_one_is_redriven_and_one_dropped(place: Place, tmp_path: Path) -> None:
    ids = await listed(place, tmp_path)
    redriven = await run(place, tmp_path, "redrive", ids["a"])
    assert (redriven.code, redriven.lines) == (0, [f"{ids['a']}  normal:e1:1"])
    dropped = await run(place, tmp_path, "drop", ids["b"])
    assert (dropped.code, dropped.lines) == (0, [f"{ids['b']}  dropped"])
    empty = await run(place, tmp_path, "list")
    assert (empty.code, empty.out, empty.err) == (0, "", "steadcast: there are no dead events\n")


async def test_all_are_redriven_at_once_and_one_that_had_arrived_is_told(
    place: Place, tmp_path: Path
) -> None:
    event = {"specversion": "1.0", "id": "a", "source": f"steadcast/{place.cast.node}", "type": "order.paid"}
    kind = {"content-type": "application/cloudevents+json"}
    found = await place.http.post(
        f"{place.url}/v1/streams/orders/events", json=event | {"data": {"n": 1}}, headers=kind
    )
    assert found.status_code == 200, found.text
    done = await run(place, tmp_path, "redrive", "--all")
    assert done.code == 0
    assert [line.split("  ")[1:] for line in done.lines] == [
        ["normal:e1:1", "it had arrived"],
        ["normal:e1:2"],
    ]
    assert await listed(place, tmp_path) == {}


async def test_an_unknown_one_is_told_and_the_others_are_done(place: Place, tmp_path: Path) -> None:
    ids = await listed(place, tmp_path)
    done = await run(place, tmp_path, "drop", "none", ids["a"])
    assert done.code == 1
    assert done.err == "steadcast: none: there is no dead event with this id (not_found)\n"
    assert done.lines == [f"{ids['a']}  dropped"]


async def test_while_the_log_is_away_a_redrive_says_so_and_keeps_it_dead(
    place: Place, tmp_path: Path
) -> None:
    ids = await listed(place, tmp_path)
    place.engine.fail_appends()
    done = await run(place, tmp_path, "redrive", ids["a"])
    assert done.code == 3
    place.engine.heal()
    assert await listed(place, tmp_path) == ids


async def test_a_listing_that_is_not_complete_says_so(place: Place, tmp_path: Path) -> None:
    place.engine.read_error = place.engine.describe_error = SteadcastError("away", temporary=True)
    done = await run(place, tmp_path, "list")
    assert done.code == 0
    assert "some may be missing" in done.err


@pytest.mark.parametrize("args", [("redrive",), ("drop",), ("drop", "x", "--all")])
def test_ids_or_all_have_to_be_given(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = Commands(tmp_path, "http://127.0.0.1:1")("dead", *args)
    assert (done.code, done.err) == (2, "steadcast: give ids, or --all\n")


def test_without_a_server_it_exits_3(tmp_path: Path) -> None:
    done = Commands(tmp_path, f"http://127.0.0.1:{free_port()}")("dead", "list")
    assert done.code == 3
    assert "no server answers" in done.err


async def test_without_the_token_it_exits_5(tmp_path: Path) -> None:
    async with serving(token="right") as place:  # noqa: S106 - a test's
        refused = await run(place, tmp_path, "list")
        assert refused.code == 5
        taken = await run(place, tmp_path, "list", "--token", "right")
        assert taken.code == 0
