"""The faults, by name: each is a coroutine that begins one and, where it lasts, ends it.

A fault that finds nothing to hit isn't counted.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from steadcast.errors import EngineUnavailable
from steadcast.event import LANES

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.sim.world import World


# The network


async def cut(world: World, rng: Random) -> None:
    if link := world.some_link(rng):
        world.record.fault("cut", f"{link.id} is cut")
        link.break_both(rng.uniform(0, 1), rng.uniform(0, 1))


async def half_open(world: World, rng: Random) -> None:
    if link := world.some_link(rng):
        world.record.fault("half open", f"{link.id} carries nothing any more, and neither end knows")
        link.break_both(rng.uniform(0, 15), rng.uniform(5, 30))


async def stall(world: World, rng: Random) -> None:
    """Hold everything on its way down for a while, and tell the hub that the transport is paused."""
    if link := world.some_link(rng):
        seconds = rng.uniform(0.5, 12)
        world.record.fault("stall", f"{link.id} takes nothing for {seconds:.1f} s")
        link.down_at = max(link.down_at, world.now + seconds)
        link.server.hub.pause(link)
        await asyncio.sleep(seconds)
        link.server.hub.resume(link)


async def delay(world: World, rng: Random) -> None:
    if link := world.some_link(rng):
        seconds = rng.uniform(0.5, 8)
        world.record.fault("delay", f"everything on {link.id} comes {seconds:.1f} s late")
        link.down_at = link.up_at = world.now + seconds


async def lose_ack(world: World, rng: Random) -> None:
    if link := world.some_link(rng):
        world.record.fault("lost ack", f"the next ack on {link.id} is lost")
        link.drop_next = "ack"


async def lose_batch(world: World, rng: Random) -> None:
    if link := world.some_link(rng):
        world.record.fault("lost batch", f"the next batch on {link.id} is lost")
        link.drop_next = "batch"


async def connects_refused(world: World, rng: Random) -> None:
    seconds = rng.uniform(1, 8)
    world.record.fault("connects refused", f"no connection is taken for {seconds:.1f} s")
    world.refused_until = world.now + seconds


# The server


async def kill_server(world: World, rng: Random) -> None:
    waiting = await world.crash()
    if waiting is not None:
        world.record.fault("server killed", f"the server is killed, with {waiting} appends before the disk")
        await asyncio.sleep(rng.uniform(0.1, 6))
        await world.restart()


async def drain(world: World, rng: Random) -> None:
    server = world.server
    if server is None or server.draining:
        return
    reconnect_in = (rng.uniform(0.1, 1), rng.uniform(1, 4))
    world.record.fault("drain", f"the server drains: come back in {reconnect_in[1]:.1f} s at most")
    await server.drain(reconnect_in)
    if world.server is server:
        world.server = None
    await world.restart()


async def token_taken_back(world: World, rng: Random) -> None:
    if (server := world.server) is not None:
        world.record.fault("token taken back", f"{world.issuer.take_back(rng)} is taken back")
        server.reload_tokens()


async def server_stops(world: World, rng: Random) -> None:
    """Jump the server's clock forwards, as its process sees it that stood still for a while."""
    if (server := world.server) is not None:
        seconds = rng.uniform(1, 60)
        world.record.fault("server clock jumps", f"the server's clock jumps by {seconds:.0f} s")
        server.skew += seconds


# The log


async def engine_fails(world: World, rng: Random) -> None:
    if (server := world.server) is None:
        return
    error = EngineUnavailable("away")
    which = rng.choice(("append", "read", "describe", "all"))
    world.record.fault("engine fails", f"the log fails: {which}")
    if which in {"append", "all"}:
        server.log.fail_appends(error=error)
    if which in {"read", "all"}:
        server.log.read_error = error
    if which in {"describe", "all"}:
        server.log.describe_error = error
    await asyncio.sleep(rng.uniform(0.3, 6))
    server.log.heal()


async def engine_hangs(world: World, rng: Random) -> None:
    if (server := world.server) is not None:
        world.record.fault("engine hangs", "appends hang")
        server.log.append_hangs = True
        await asyncio.sleep(rng.uniform(0.5, 8))
        server.log.append_hangs = False


async def engine_slow(world: World, rng: Random) -> None:
    if (server := world.server) is not None:
        server.log.commits.slow = rng.uniform(5, 60)
        world.record.fault("engine slow", f"the log is {server.log.commits.slow:.0f} times slower")
        await asyncio.sleep(rng.uniform(0.5, 8))
        server.log.commits.slow = 1.0


async def answers_lost(world: World, rng: Random) -> None:
    if (server := world.server) is not None:
        world.record.fault("append answers lost", "appends are durable and then fail")
        server.log.answers_lost = True
        await asyncio.sleep(rng.uniform(0.5, 4))
        server.log.answers_lost = False


async def watch_silent(world: World, rng: Random) -> None:
    if (server := world.server) is not None:
        world.record.fault("watch silent", "the watch brings nothing")
        server.log.watch_silent = True
        await asyncio.sleep(rng.uniform(0.5, 6))
        server.log.watch_silent = False


async def watch_ends(world: World, rng: Random) -> None:
    if (server := world.server) is not None:
        world.record.fault("watch ends", "the watch ends")
        server.log.end_watches()


async def retention(world: World, rng: Random) -> None:
    """Trim a lane up to anywhere, cursors or not."""
    if (server := world.server) is None:
        return
    stream, lane = rng.choice(world.streams), rng.choice(LANES)
    head = world.disk.heads()[stream, lane]
    upto = rng.randint(0, head)
    world.record.fault("retention", f"retention takes {stream} {lane} up to {upto} of {head}")
    # A crash ends this too: nobody waits for a server that was killed.
    await asyncio.wait({server.spawn(server.log.trim(stream, lane, upto))})


async def rewind(world: World, rng: Random) -> None:
    """Restore an older backup: a new epoch, whose log is the front of the old one."""
    backup = await world.disk.backup()
    await asyncio.sleep(rng.uniform(0, 3))
    await world.crash()
    await world.disk.restore(backup, rng)
    world.record.fault("rewind", f"a backup is restored as {world.disk.epoch}")
    await asyncio.sleep(rng.uniform(0.1, 3))
    await world.restart()


async def wall_jumps(world: World, rng: Random) -> None:
    seconds = rng.choice((-1, 1)) * rng.uniform(1, 3_600)
    world.record.fault("wall clock jumps", f"the wall clock jumps by {seconds:.0f} s")
    world.wall_jump += seconds


# Subscribers


async def subscriber_sleeps(world: World, rng: Random) -> None:
    who, seconds = rng.choice(world.subscribers), rng.uniform(1, 25)
    world.record.fault("subscriber sleeps", f"{who.name}'s handler sleeps for {seconds:.1f} s")
    who.asleep_until = world.now + seconds


async def subscriber_crashes(world: World, rng: Random) -> None:
    who = rng.choice(world.subscribers)
    world.record.fault("subscriber crashes", f"{who.name} crashes; what it stored stays")
    who.crash()


async def subscriber_away(world: World, rng: Random) -> None:
    who, seconds = rng.choice(world.subscribers), rng.uniform(2, 15)
    world.record.fault("subscriber away", f"{who.name} goes away for {seconds:.1f} s")
    who.away_until = world.now + seconds
    if who.link is not None:
        who.link.break_both(0.0, rng.uniform(0, 1))


async def subscriber_leaves(world: World, rng: Random) -> None:
    who = rng.choice(world.subscribers)
    if who.link is not None:
        left = rng.choice(list(who.follows.values()))
        world.record.fault("subscriber leaves", f"{left.name} unsubscribes, and subscribes again soon")
        left.leave(rng.choice((0.0, rng.uniform(0, 0.1), rng.uniform(0, 5))))


async def subscriber_clock(world: World, rng: Random) -> None:
    """Jump a subscriber's clock forwards, as a program sees it that was suspended."""
    who, seconds = rng.choice(world.subscribers), rng.uniform(1, 60)
    world.record.fault("subscriber clock jumps", f"{who.name}'s clock jumps by {seconds:.0f} s")
    who.suspended(seconds)


async def newcomer(world: World, rng: Random) -> None:
    from tests.sim.subscriber import Subscriber  # the two know each other

    if len(world.subscribers) < 5 and rng.random() < 0.8:
        who = Subscriber(world, f"sub{len(world.subscribers)}")
        world.record.fault("newcomer", f"{who.name} comes, from {who.start}")
        world.subscribers.append(who)
        who.connect()


async def handlers_fail(world: World, rng: Random) -> None:
    who = rng.choice(world.subscribers)
    world.record.fault("handlers fail", f"half of {who.name}'s handlers fail")
    who.failing = 0.5
    await asyncio.sleep(rng.uniform(0.5, 5))
    who.failing = 0.01


FAULTS: dict[str, Callable[[World, Random], Any]] = {
    fault.__name__: fault
    for fault in (
        cut, half_open, stall, delay, lose_ack, lose_batch, connects_refused,
        kill_server, drain, token_taken_back, server_stops,
        engine_fails, engine_hangs, engine_slow, answers_lost, watch_silent, watch_ends, retention, rewind,
        wall_jumps, subscriber_sleeps, subscriber_crashes, subscriber_away, subscriber_leaves,
        subscriber_clock, newcomer, handlers_fail,
    )
}  # fmt: skip
