"""No handler hangs: whoever registered it, in whatever form, and whatever it does with its cancellation."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import Any

import pytest
import socketio
from structlog.testing import capture_logs

from steadcast.config import Settings
from steadcast.errors import HandlerTimeout, InvalidRequest
from steadcast.socketio.deadlines import STILL
from steadcast.socketio.timeouts import (
    COUNTS,
    DEFAULT_TIMEOUT,
    TimeoutCounts,
    Timeouts,
    run_limited,
    timeout_handler,
)
from steadcast.testing import ManualClock
from tests.support.house import House, Peer, event, listening


async def hang(*_: Any) -> str:
    await asyncio.sleep(60)
    return "too late"


def server() -> socketio.AsyncServer:
    return socketio.AsyncServer(async_mode="asgi")


async def asked(house: House, name: str, *, namespace: str = "/", transports: Any = None) -> tuple[Any, Peer]:
    """Let a stock client call an event, and give the answer and what else it heard."""
    peer = Peer()
    spaces = ["/"] if namespace == "/" else ["/", namespace]
    peer.sio.on("*", lambda name, data: peer.heard.append((name, data)), namespace=namespace)
    await peer.sio.connect(house.url, namespaces=spaces, transports=["websocket"], wait_timeout=30)
    answer = await peer.sio.call(name, {}, namespace=namespace, timeout=30)
    return answer, peer


# The decorator, alone


async def test_a_plain_function_gets_its_answer_through() -> None:
    @timeout_handler(timeout_seconds=5.0)
    async def handle_event(sid: str, data: Any) -> Any:
        return sid, data

    assert await handle_event("a", 1) == ("a", 1)


@pytest.mark.parametrize("kind", ["function", "method", "closure", "partial", "lambda"])
async def test_a_timeout_never_takes_the_sid_for_self(kind: str) -> None:
    limited = timeout_handler(timeout_seconds=0.01, name="slow")

    class Handlers:
        handle = limited(hang)

        @limited
        async def method(self, *_: Any) -> Any:
            assert isinstance(self, Handlers)
            return await hang(*_)

    def close_over(seconds: float) -> Any:
        async def closure(sid: str, data: Any) -> Any:
            await asyncio.sleep(seconds)

        return limited(closure)

    handler = {
        "function": limited(hang),
        "method": Handlers().method,
        "closure": close_over(60),
        "partial": functools.partial(limited(hang), "first"),
        "lambda": limited(lambda _, __: hang()),  # type: ignore[misc]
    }[kind]
    answer = await handler("sid-1", {})
    assert answer == {
        "ok": False,
        "error": {
            "code": "timeout", "temporary": True, "message": "slow took longer than 0.01 s",
            "event": "slow", "timeout": 0.01,
        },
    }  # fmt: skip


async def test_what_a_handler_raises_goes_through() -> None:
    @timeout_handler()
    async def fail() -> None:
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        await fail()


async def test_the_task_is_cancelled_and_the_error_logged() -> None:
    ended = asyncio.Event()

    @timeout_handler(timeout_seconds=0.01)
    async def stuck() -> None:
        try:
            await hang()
        finally:
            ended.set()

    with capture_logs() as logs:
        await stuck()
    await asyncio.wait_for(ended.wait(), 10)
    told = [entry for entry in logs if entry["event"] == "handler timed out"]
    assert told == [{"event": "handler timed out", "log_level": "error", "handler": "stuck", "timeout": 0.01}]


@pytest.mark.parametrize(("took", "warned"), [(3.9, 0), (4.0, 1), (4.9, 1)])
async def test_from_80_percent_of_its_time_a_handler_is_warned_of(took: float, warned: int) -> None:
    clock = ManualClock()
    counts = TimeoutCounts(clock)

    async def handler() -> None:
        clock.advance(took)

    with capture_logs() as logs:
        await run_limited(handler(), seconds=5.0, name="near", counts=counts)
    assert counts.warnings["near"] == warned
    told = [entry for entry in logs if entry["event"] == "handler is close to its timeout"]
    assert [(entry["handler"], entry["took"], entry["log_level"]) for entry in told] == [
        ("near", took, "warning")
    ] * warned


async def test_without_a_limit_a_handler_takes_what_it_takes() -> None:
    @timeout_handler(timeout_seconds=None)
    async def patient() -> str:
        await asyncio.sleep(0.01)
        return "done"

    assert await patient() == "done"


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "5", hang])
def test_a_limit_that_is_no_positive_number_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="positive number"):
        timeout_handler(wrong)


async def test_runs_timeouts_and_warnings_are_counted_by_handler() -> None:
    @timeout_handler(timeout_seconds=0.01, name="counted-alone")
    async def handler() -> None:
        await hang()

    for _ in range(3):
        await handler()
    told = COUNTS.statistics()
    assert told["runs"]["counted-alone"] == told["timeouts"]["counted-alone"] == 3


async def test_a_cancelled_caller_cancels_the_handler() -> None:
    ended = asyncio.Event()

    async def stuck() -> None:
        try:
            await hang()
        finally:
            ended.set()

    caller = asyncio.create_task(run_limited(stuck(), seconds=60, name="cancelled"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.wait_for(ended.wait(), 10)


async def test_what_a_handler_does_after_its_time_is_told_and_forgotten() -> None:
    counts = Timeouts().counts

    async def stubborn() -> None:
        try:
            await hang()
        except asyncio.CancelledError as error:
            raise LookupError("while cleaning up") from error

    with capture_logs() as logs:
        with pytest.raises(HandlerTimeout):
            await run_limited(stubborn(), seconds=0.01, name="stubborn", counts=counts)
        assert counts.statistics()["runaways"] == 1
        while counts.runaways:
            await asyncio.sleep(0)
    assert "LookupError('while cleaning up')" in [entry.get("error") for entry in logs]


# Which limit counts


def test_the_defaults_are_5_seconds_and_3_for_simple_ones() -> None:
    timeouts = Timeouts()
    assert timeouts.limit("anything", hang) == 5.0 == DEFAULT_TIMEOUT
    assert [timeouts.own_limit(name) for name in ("subscribe", "unsubscribe")] == [3.0, 3.0]
    assert [timeouts.own_limit(name) for name in ("publish", "ack", "pong")] == [5.0, 5.0, 5.0]


def test_configuration_goes_before_the_decorator_and_the_decorator_before_the_default() -> None:
    timeouts = Timeouts(5.0, by_event={"export": 60.0, "free": None, "subscribe": 1.0})
    decorated = timeout_handler(timeout_seconds=2.0)(hang)
    assert timeouts.limit("export", decorated) == 60.0
    assert timeouts.limit("free", decorated) is None
    assert timeouts.limit("other", decorated) == 2.0
    assert timeouts.limit("other", functools.partial(decorated, 1)) == 2.0
    assert timeouts.limit("other", hang) == 5.0
    assert timeouts.own_limit("subscribe") == 1.0


def test_the_environment_sets_limits_by_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADCAST_HANDLER_TIMEOUT", "7")
    monkeypatch.setenv("STEADCAST_HANDLER_TIMEOUTS", '{"export": 30.0, "free": null}')
    settings = Settings()
    assert (settings.handler_timeout, settings.handler_timeouts) == (7.0, {"export": 30.0, "free": None})


def test_turned_off_for_the_application_steadcasts_own_handlers_keep_their_time() -> None:
    timeouts = Timeouts(None)
    assert timeouts.limit("export", hang) is None
    assert [timeouts.own_limit(name) for name in ("publish", "subscribe")] == [5.0, 3.0]


def test_a_short_default_shortens_the_simple_ones_too() -> None:
    assert Timeouts(1.0).own_limit("subscribe") == 1.0


# Steadcast's own handlers


async def test_an_own_handler_that_hangs_is_cancelled_counted_logged_and_told() -> None:
    timeouts = Timeouts(by_event={"publish": 0.01})
    with capture_logs() as logs, pytest.raises(HandlerTimeout) as told:
        await timeouts.run_own("publish", hang, "a payload")
    assert told.value.fields == {"event": "publish", "timeout": 0.01}
    assert dict(timeouts.counts.timeouts) == dict(timeouts.counts.runs) == {"publish": 1}
    assert [entry["event"] for entry in logs] == ["handler timed out"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_an_own_handler_raises_goes_through_a_timeout_error_too() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    timeouts = Timeouts()
    with pytest.raises(TimeoutError, match="its own"):
        await timeouts.run_own("publish", fail)
    assert not timeouts.counts.timeouts


@pytest.mark.parametrize(("took", "warned"), [(3.9, 0), (4.0, 1)])
async def test_from_80_percent_of_its_time_an_own_handler_is_warned_of(took: float, warned: int) -> None:
    clock = ManualClock()
    timeouts = Timeouts()
    timeouts.counts.clock = clock

    async def slow() -> str:
        clock.advance(took)
        return "done"

    with capture_logs() as logs:
        assert await timeouts.run_own("publish", slow) == "done"
    assert timeouts.counts.warnings["publish"] == len(logs) == warned


async def test_an_own_handler_without_a_limit_has_none() -> None:
    async def quick() -> str:
        return "done"

    assert await Timeouts(by_event={"publish": None}).run_own("publish", quick) == "done"


# On an attached server


def with_function(sio: socketio.AsyncServer) -> str:
    sio.on("work", hang)
    return "/"


def with_method(sio: socketio.AsyncServer) -> str:
    class Handlers:
        async def work(self, *_: Any) -> Any:
            return await hang()

    sio.on("work", Handlers().work)
    return "/"


def with_catch_all(sio: socketio.AsyncServer) -> str:
    @sio.on("*")
    async def anything(name: str, sid: str, data: Any) -> Any:
        assert name == "work"
        return await hang()

    return "/"


def with_class(sio: socketio.AsyncServer) -> str:
    class Space(socketio.AsyncNamespace):  # type: ignore[misc]
        async def on_work(self, *_: Any) -> Any:
            return await hang()

    sio.register_namespace(Space("/"))
    return "/"


def with_class_of_another_namespace(sio: socketio.AsyncServer) -> str:
    class Space(socketio.AsyncNamespace):  # type: ignore[misc]
        async def on_work(self, *_: Any) -> Any:
            return await hang()

    sio.register_namespace(Space("/admin"))
    return "/admin"


def with_catch_all_of_another_namespace(sio: socketio.AsyncServer) -> str:
    @sio.on("*", namespace="/admin")
    async def anything(name: str, sid: str, data: Any) -> Any:
        return await hang()

    return "/admin"


KINDS = [
    with_function,
    with_method,
    with_catch_all,
    with_class,
    with_class_of_another_namespace,
    with_catch_all_of_another_namespace,
]


@pytest.mark.parametrize("register", KINDS)
async def test_every_kind_of_handler_has_the_default_and_its_client_is_told(register: Any) -> None:
    sio = server()
    namespace = register(sio)
    async with listening(House(sio=sio, timeouts=Timeouts(0.05))) as house:
        answer, peer = await asked(house, "work", namespace=namespace)
        assert answer["ok"] is False
        told = {"code": "timeout", "event": "work", "timeout": 0.05}
        assert told.items() <= answer["error"].items()
        await peer.until(lambda: peer.named("error"))
        assert told.items() <= peer.named("error")[0].items()
        counted = house.transport.timeouts.counts.statistics()["timeouts"]
        assert counted == {"*" if "catch_all" in register.__name__ else "work": 1}
        await peer.close()


async def test_the_decorators_limit_counts_on_a_server_too_and_its_client_is_told() -> None:
    sio = server()
    sio.on("work", timeout_handler(timeout_seconds=0.05)(hang))
    async with listening(House(sio=sio)) as house:
        answer, peer = await asked(house, "work")
        assert answer["error"]["timeout"] == 0.05
        await peer.until(lambda: peer.named("error"))
        assert len(peer.named("error")) == 1
        await peer.close()


async def test_a_longer_limit_by_decorator_counts_under_other_decorators_and_partials() -> None:
    sio = server()

    def logged(handler: Any) -> Any:
        @functools.wraps(handler)
        async def wrapper(*args: Any) -> Any:
            return await handler(*args)

        return wrapper

    @logged
    @timeout_handler(timeout_seconds=5.0)
    async def wrapped(sid: str, data: Any) -> str:
        await asyncio.sleep(0.1)
        return "done"

    @timeout_handler(timeout_seconds=5.0)
    async def third(first: int, sid: str, data: Any) -> str:
        await asyncio.sleep(0.1)
        return "done"

    sio.on("wrapped", wrapped)
    sio.on("partial", functools.partial(third, 1))
    async with listening(House(sio=sio, timeouts=Timeouts(0.05))) as house:
        for name in ("wrapped", "partial"):
            answer, peer = await asked(house, name)
            assert answer == "done", name
            await peer.close()


async def test_a_helper_with_a_limit_keeps_it_inside_a_handler_without_one() -> None:
    sio = server()
    helper = timeout_handler(timeout_seconds=0.05, name="helper")(hang)

    @sio.event
    async def work(sid: str, data: Any) -> Any:
        return await helper()

    @sio.event
    @timeout_handler(timeout_seconds=4.0)
    async def limited(sid: str, data: Any) -> Any:
        return await helper()

    async with listening(House(sio=sio)) as house:
        for name in ("work", "limited"):
            answer, peer = await asked(house, name)
            assert answer["error"]["event"] == "helper"
            await peer.close()
        assert not house.transport.timeouts.counts.timeouts


async def test_by_configuration_a_limit_can_be_set_or_lifted_for_one_handler() -> None:
    sio = server()
    sio.on("short", hang)

    @sio.event
    @timeout_handler(timeout_seconds=0.01)
    async def free(sid: str, data: Any) -> str:
        await asyncio.sleep(0.1)
        return "done"

    limits = Timeouts(by_event={"short": 0.05, "free": None})
    async with listening(House(sio=sio, timeouts=limits)) as house:
        answer, peer = await asked(house, "short")
        assert answer["error"]["timeout"] == 0.05
        assert await peer.call("free", {}) == "done"
        await peer.close()


async def test_an_applications_own_subscribe_keeps_its_own_limit() -> None:
    sio = server()

    @sio.on("subscribe")
    @timeout_handler(timeout_seconds=0.05)
    async def own(sid: str, data: Any) -> Any:
        return await hang()

    async with listening(House(sio=sio)) as house:
        answer, peer = await asked(house, "subscribe")
        assert answer["error"]["timeout"] == 0.05
        assert (await peer.call("subscribe", {"stream": "s"}))["ok"]
        await peer.close()


async def test_a_handler_that_swallows_its_cancellation_does_not_hold_the_connection() -> None:
    sio = server()
    let_go = asyncio.Event()

    @sio.event
    async def stubborn(sid: str, data: Any) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    async with listening(House(sio=sio, timeouts=Timeouts(0.05))) as house:
        try:
            answer, peer = await asked(house, "stubborn")
            assert answer["error"]["code"] == "timeout"
            assert house.transport.timeouts.counts.statistics()["runaways"] == 1
            assert (await peer.call("subscribe", {"stream": "s"}))["ok"]
            await peer.call("publish", {"stream": "s", "events": [event(1)]})
            await peer.until(peer.events)
            await peer.close()
            await peer.until(lambda: len(house.connections) == 0, "the connection is gone")
        finally:
            let_go.set()
        await peer.until(lambda: not house.transport.timeouts.counts.runaways)


async def test_a_connect_handler_that_hangs_refuses_the_connect() -> None:
    sio = server()
    sio.on("connect", hang)
    async with listening(House(sio=sio, timeouts=Timeouts(0.05))) as house:
        peer = Peer()
        with pytest.raises(socketio.exceptions.ConnectionError):
            await peer.connect(house.url)
        assert peer.named("connect_error")[0]["data"]["code"] == "timeout"
        assert len(house.connections) == 0


async def test_a_disconnect_handler_that_hangs_leaves_nothing_behind() -> None:
    sio = server()
    sio.on("disconnect", hang)
    async with listening(House(sio=sio, timeouts=Timeouts(0.05))) as house:
        peer = Peer()
        await peer.connect(house.url)
        await peer.call("subscribe", {"stream": "s"})
        await peer.close()
        await peer.until(lambda: house.transport.timeouts.counts.timeouts["disconnect"] == 1)
        await peer.until(lambda: len(house.connections) == 0 and house.hub.statistics()["groups"] == 0)


async def test_old_forms_of_handlers_still_work() -> None:
    sio = server()
    seen: list[str] = []

    @sio.event
    def connect(sid: str, environ: Any) -> None:
        seen.append("connect")

    @sio.event
    def disconnect(sid: str) -> None:
        seen.append("disconnect")

    @sio.event
    def add(sid: str, data: list[int]) -> int:
        return sum(data)

    async with listening(House(sio=sio)) as house:
        peer = Peer()
        await peer.connect(house.url)
        assert await peer.call("add", [1, 2]) == 3
        await peer.close()
        await peer.until(lambda: seen == ["connect", "disconnect"])


async def test_a_handler_that_raises_is_a_failure_of_its_client_and_the_connection_stays() -> None:
    sio = server()

    @sio.event
    async def broken(sid: str, data: Any) -> None:
        raise LookupError("a defect of the application's")

    raised: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    async with listening(House(sio=sio)) as house:
        peer = Peer()
        await peer.connect(house.url)
        await peer.sio.emit("broken", {})
        await peer.until(lambda: house.connections.statistics()["clients"][0]["failures"] == 1)
        assert (await peer.call("subscribe", {"stream": "s"}))["ok"]
        await peer.close()


async def test_names_that_clients_think_of_do_not_fill_the_counts() -> None:
    sio = server()
    sio.on("known", timeout_handler()(hang))
    async with listening(House(sio=sio)) as house:
        peer = Peer()
        await peer.connect(house.url)
        for n in range(50):
            await peer.sio.emit(f"unknown-{n}", {})
        counts = house.transport.timeouts.counts
        await peer.until(lambda: counts.runs["*"] == 50)
        assert set(counts.runs) <= {"*", "connect", "disconnect"}
        await peer.close()


async def test_a_handler_that_was_answered_while_another_held_the_loop_is_in_time() -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    async def wait() -> str:
        told = await answer
        for _ in range(5):
            await asyncio.sleep(0)  # as libraries hand an answer on
        return told

    answered = asyncio.create_task(run_limited(wait(), seconds=0.05, name="answered"))
    hanging = asyncio.create_task(run_limited(hang(), seconds=0.05, name="hanging"))
    await asyncio.sleep(0)
    threading.Timer(0.01, loop.call_soon_threadsafe, (answer.set_result, "done")).start()
    time.sleep(2 * STILL)  # noqa: ASYNC251 - as a handler of an application's might
    assert await answered == "done"
    with pytest.raises(HandlerTimeout):
        await hanging


async def test_a_name_that_no_log_can_hold_keeps_no_client_from_its_answer() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")  # whose JSON lets half an emoji in

    @sio.on("*")
    @timeout_handler(timeout_seconds=0.05)
    async def any_event(*_: Any) -> None:
        await hang()

    async with listening(House(sio=sio)) as house:
        peer = Peer()
        await peer.connect(house.url)
        answer = await peer.call("half \ud83d\n", {})
        assert answer["error"]["event"] == "half \\ud83d\\n"
        await peer.close()


async def test_steadcasts_own_handlers_are_limited_as_well() -> None:
    house = House(timeouts=Timeouts(0.05))
    never = asyncio.Event()

    async def silent(*_: Any) -> Any:
        await never.wait()

    house.transport._publish = silent
    async with listening(house):
        peer = Peer()
        await peer.connect(house.url)
        answer = await peer.call("publish", {"stream": "s", "events": [event(1)]})
        assert {"code": "timeout", "event": "publish", "timeout": 0.05}.items() <= answer["error"].items()
        await peer.until(lambda: peer.named("error"))
        await peer.close()
