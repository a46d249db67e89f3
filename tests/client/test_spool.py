"""The spool: crash-safe, bounded, many writers at once, and nothing leaves it uncounted."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steadcast.client.spool import EXPIRED, FULL, REFUSED, UNREADABLE, Spool
from steadcast.client.spooled import Request, Unreadable, decode, encode, entry_name, spool_root, stamp
from tests.support.descriptors import no_descriptors_left

PATH = "/v1/streams/s/events"


def request(body: bytes = b"{}", *, critical: bool = False) -> Request:
    return Request(PATH, {"content-type": "application/cloudevents+json"}, body, critical=critical)


def bodies(spool: Spool) -> list[bytes]:
    taken = [spool.take(name) for name in spool.names()]
    return [each.body for each in taken if each is not None]


def assert_nothing_uncounted(spool: Spool) -> None:
    told = spool.statistics()
    assert told["accepted"] == told["pending"] + told["delivered"] + sum(told["dropped"].values())
    assert told["dead"] + told["dead_evicted"] + told["redriven"] == sum(
        told["dropped"][reason] for reason in (EXPIRED, REFUSED, UNREADABLE)
    )


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool" / "localhost_1"))


# What comes in comes out


def test_what_is_put_is_taken_in_order_and_gone_when_delivered(spool: Spool) -> None:
    for number in range(20):
        spool.put(request(b"%d" % number))
    assert bodies(spool) == [b"%d" % number for number in range(20)]
    assert all(spool.delivered(name) for name in spool.names())
    assert spool.names() == []
    assert_nothing_uncounted(spool)


def test_what_is_half_out_is_counted_before_the_process_ends(spool: Spool) -> None:
    """An entry is removed first and counted then; a hook whose time is over waits for that, for a moment."""
    name = spool.put(request())
    assert name is not None
    slow = Path(spool.folder) / "counts" / "delivered"
    os.mkfifo(slow)  # opening it to write waits for somebody who reads
    leaving = threading.Thread(target=spool.delivered, args=(name,))
    leaving.start()
    while spool.names():
        time.sleep(0.01)
    spool.end(0.05)
    assert leaving.is_alive()
    with slow.open("rb") as counted:
        spool.end(60)
        assert counted.read(1) == b"."
        leaving.join(60)


def test_a_second_process_sees_what_the_first_one_put(spool: Spool) -> None:
    spool.put(request(b'{"a": "\xc3\xbc"}'))
    other = Spool(spool.folder)
    (name,) = other.names()
    taken = other.take(name)
    assert taken is not None
    assert (taken.path, taken.headers, taken.body) == (PATH, request().headers, b'{"a": "\xc3\xbc"}')


def test_an_entry_sorts_by_the_stamp_it_was_given_not_by_when_it_was_written(spool: Spool) -> None:
    early, late = stamp(), stamp()
    spool.put(request(b"late"), late)
    spool.put(request(b"early"), early)
    assert bodies(spool) == [b"early", b"late"]


def test_stamps_grow_even_when_the_wall_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = stamp()
    monkeypatch.setattr("steadcast.client.spooled.time.time_ns", lambda: 1)
    assert stamp() > first


def test_only_the_owner_may_read_what_is_spooled(spool: Spool) -> None:
    name = spool.put(request(b"secret"))
    assert name is not None
    folder = Path(spool.folder)
    assert stat.S_IMODE((folder / "new" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_whoever_removes_first_counts_the_delivery(spool: Spool) -> None:
    name = spool.put(request())
    assert name is not None
    other = Spool(spool.folder)
    assert spool.delivered(name)
    assert not other.delivered(name)
    assert other.take(name) is None
    assert other.statistics()["delivered"] == 1
    assert_nothing_uncounted(other)


def test_a_folder_removed_under_a_writer_is_made_again(spool: Spool) -> None:
    import shutil

    spool.put(request())
    shutil.rmtree(spool.folder)
    assert spool.put(request(b"after")) is not None
    assert bodies(spool) == [b"after"]


# Bounds


def test_a_full_spool_gives_up_the_oldest_normal_entry_first(tmp_path: Path) -> None:
    gone: list[tuple[str, str]] = []
    spool = Spool(str(tmp_path), max_entries=3, watch=lambda name, outcome: gone.append((name, outcome)))
    spool.put(request(b"c1", critical=True))
    first_normal = spool.put(request(b"n1"))
    spool.put(request(b"n2"))
    spool.put(request(b"c2", critical=True))
    assert bodies(spool) == [b"c1", b"n2", b"c2"]
    assert gone == [(first_normal, FULL)]
    assert_nothing_uncounted(spool)


def test_a_critical_entry_goes_only_when_all_are_critical(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), max_entries=2)
    for body in (b"c1", b"c2", b"c3"):
        spool.put(request(body, critical=True))
    assert bodies(spool) == [b"c2", b"c3"]


def test_a_normal_entry_does_not_push_out_critical_ones(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), max_entries=2)
    spool.put(request(b"c1", critical=True))
    spool.put(request(b"c2", critical=True))
    assert spool.put(request(b"n")) is None
    assert bodies(spool) == [b"c1", b"c2"]
    assert spool.statistics()["dropped"][FULL] == 1
    assert_nothing_uncounted(spool)


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), max_bytes=1_000)
    for number in range(10):
        spool.put(request(b"%d" % number * 200))
    assert spool.statistics()["pending_bytes"] <= 1_000
    assert bodies(spool)[-1] == b"9" * 200
    assert_nothing_uncounted(spool)


def test_what_is_larger_than_the_whole_spool_is_dropped_and_pushes_nothing_out(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), max_bytes=1_000)
    spool.put(request(b"small"))
    assert spool.put(request(b"x" * 2_000, critical=True)) is None
    assert bodies(spool) == [b"small"]
    assert_nothing_uncounted(spool)


def test_the_defaults_are_ten_thousand_entries_of_64_mib_for_a_week(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    assert (spool.max_entries, spool.max_bytes, spool.max_age) == (10_000, 64 * 2**20, 7 * 86_400)


# Giving up


def test_what_is_older_than_the_maximum_age_is_never_sent(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), max_age=60)
    spool.put(request(b"old"))
    later = Spool(str(tmp_path), max_age=60, now=lambda: time.time() + 61)
    assert bodies(later) == []
    (dead,) = later.dead()
    assert dead.reason.startswith(EXPIRED)
    assert later.statistics()["dropped"][EXPIRED] == 1
    assert_nothing_uncounted(later)


def test_what_a_clock_that_was_never_set_has_stamped_is_sent_when_it_is_set(spool: Spool) -> None:
    """A board without a battery for its clock counts from 1970 until it finds a network."""
    spool.put(request(b"early"), when=f"{90 * 10**9:020d}-{1:010d}-{1:010d}")
    assert bodies(spool) == [b"early"]
    assert spool.dead() == []


def test_a_refused_entry_is_kept_in_dead_with_its_reason(spool: Spool) -> None:
    name = spool.put(request(b"bad"))
    assert name is not None
    assert spool.refuse(name, "400 invalid_event")
    (dead,) = spool.dead()
    assert dead.reason == "refused: 400 invalid_event"
    assert dead.request is not None
    assert dead.request.body == b"bad"
    assert abs(dead.at - time.time()) < 60
    assert spool.names() == []
    assert_nothing_uncounted(spool)


def test_a_refusal_of_what_another_drainer_delivered_leaves_nothing_dead(spool: Spool) -> None:
    name = spool.put(request())
    assert name is not None
    Spool(spool.folder).delivered(name)
    assert not spool.refuse(name, "late")
    assert spool.dead() == []
    assert_nothing_uncounted(spool)


def test_dead_entries_can_be_put_back_in_line(spool: Spool) -> None:
    for body in (b"1", b"2"):
        name = spool.put(request(body))
        assert name is not None
        spool.refuse(name, "401 unauthorized")
    assert spool.redrive(spool.dead()[0].name) == 1
    assert spool.redrive() == 1
    assert bodies(spool) == [b"1", b"2"]
    assert spool.dead() == []


def test_dead_is_bounded_in_entries_and_bytes(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), max_dead=10, max_dead_bytes=1_500)
    for number in range(50):
        name = spool.put(request(b"%02d" % number))
        assert name is not None
        spool.refuse(name, "no")
        assert len(spool.dead()) <= 10
        assert sum(path.stat().st_size for path in (tmp_path / "dead").iterdir()) <= 1_500
    assert spool.dead()[-1].request is not None
    assert spool.statistics()["dead_evicted"] + len(spool.dead()) == 50
    assert_nothing_uncounted(spool)


def test_what_was_refused_before_it_was_spooled_is_dead_and_counted(spool: Spool) -> None:
    spool.put_dead(request(b"bad"), stamp(), "400 invalid_event")
    assert [dead.reason for dead in spool.dead()] == ["refused: 400 invalid_event"]
    assert_nothing_uncounted(spool)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"not json\nbody",
        b"[]\nbody",
        b'{"path": "/x"}\nbody',
        b'{"path": "no slash", "headers": {}}\nbody',
        b'{"path": "/x y", "headers": {}}\nbody',
        b'{"path": "/x", "headers": []}\nbody',
        b'{"path": "/x", "headers": {"a": "b\\r\\nc"}}\nbody',
        b'{"path": "/x", "headers": {"a b": "c"}}\nbody',
        b'{"path": "/x", "headers": {"a": 1}}\nbody',
        b'{"path": "/x", "headers": {}}',
        b"[" * 100_000 + b"\nbody",
    ],
)
def test_a_file_that_cannot_be_read_goes_to_dead(spool: Spool, content: bytes) -> None:
    name = spool.put(request())
    assert name is not None
    broken = f"{name.rpartition('-')[0]}-{len(content)}"
    Path(spool.folder, "new", name).rename(Path(spool.folder, "new", broken))
    Path(spool.folder, "new", broken).write_bytes(content)
    assert bodies(spool) == []
    assert [(dead.name, dead.request) for dead in spool.dead()] == [(broken, None)]
    assert spool.statistics()["dropped"][UNREADABLE] == 1
    assert_nothing_uncounted(spool)


def test_a_file_cut_short_goes_to_dead(spool: Spool) -> None:
    name = spool.put(request(b'{"a": 1}'))
    assert name is not None
    path = Path(spool.folder, "new", name)
    path.write_bytes(path.read_bytes()[:-1])
    assert spool.take(name) is None
    assert spool.statistics()["dropped"][UNREADABLE] == 1


def _make(kind: str, path: Path) -> None:
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as unix:
                unix.bind(os.path.relpath(path))
        case "dangling":
            path.symlink_to("nowhere")
        case "circle":
            path.symlink_to(path)
        case "endless":
            path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "dangling", "circle", "endless"])
@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_what_is_no_file_leaves_the_line_and_holds_nobody_up(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, kind: str, *, foreign: bool, old: bool
) -> None:
    spool.put(request(b"before"))
    when = f"{1_600_000_000 * 10**9:020d}-{1:010d}-{1:010d}" if old else stamp()
    spool.put(request(b"after"))
    monkeypatch.chdir(Path(spool.folder, "new"))
    name = "foreign" if foreign else entry_name(when, request(), 10)
    _make(kind, Path(spool.folder, "new", name))
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.extend(bodies(spool)), daemon=True)
    thread.start()
    thread.join(40)
    assert found == [b"before", b"after"]
    assert [(dead.name, dead.request) for dead in spool.dead()] == [(name, None)]
    assert len(spool.names()) == 2
    assert spool.redrive() == 0
    assert spool.statistics()["dropped"][EXPIRED if old and not foreign else UNREADABLE] == 1


@pytest.mark.parametrize("head", [b"[" * 100_000, b'{"reason": "x", "at": 1%s}' % (b"0" * 400)])
def test_a_dead_file_whose_head_is_none_is_shown_without_a_reason(spool: Spool, head: bytes) -> None:
    spool.put_dead(request(), stamp(), "no")
    (dead,) = spool.dead()
    Path(spool.folder, "dead", dead.name).write_bytes(head + b"\nbody")
    assert [(each.reason, each.request) for each in spool.dead()] == [("unknown", None)]


def test_foreign_files_leave_the_line_and_hidden_ones_are_left_alone(spool: Spool) -> None:
    spool.put(request())
    Path(spool.folder, "new", "notes.txt").write_text("hello")
    Path(spool.folder, "new", ".hidden").write_text("hello")
    assert len(spool.names()) == 1
    assert [dead.name for dead in spool.dead()] == ["notes.txt"]
    assert Path(spool.folder, "new", ".hidden").exists()
    assert_nothing_uncounted(spool)


def test_leftovers_of_killed_writers_are_removed_after_an_hour(spool: Spool) -> None:
    spool.put(request())
    old, young = (Path(spool.folder, "tmp", name) for name in ("old", "young"))
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (time.time() - 3_700,) * 2)
    Spool(spool.folder).names()
    assert not old.exists()
    assert young.exists()


# A disk that refuses


def test_nothing_that_it_opened_stays_open(spool: Spool) -> None:
    spool.put(request())
    spool.refuse(spool.names()[0], "no")
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(5):
        spool.put(request())
        spool.put(request())
        delivered, refused = spool.names()
        spool.take(delivered)
        spool.delivered(delivered)
        spool.refuse(refused, "no")
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_file_in_the_folders_place_raises(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(OSError, match="x"):
        Spool(str(tmp_path / "x" / "y")).put(request())


def test_a_disk_that_fills_up_leaves_no_half_entries(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.put(request(b"first"))
    real = os.fsync
    calls = iter([None, None, OSError(28, "No space left on device")])

    def full(file: int) -> None:
        trouble = next(calls, None)
        if trouble is not None:
            raise trouble
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    done = spool.put_many([(stamp(), request(b"%d" % number)) for number in range(5)])
    monkeypatch.undo()
    assert done == 2
    assert bodies(spool) == [b"first", b"0", b"1"]
    assert list(Path(spool.folder, "tmp").iterdir()) == []
    assert_nothing_uncounted(spool)


def test_an_entry_that_no_copy_can_be_made_of_still_leaves_the_line(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = spool.put(request(b"bad"))
    assert name is not None

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert spool.refuse(name, "no")
    monkeypatch.undo()
    assert spool.names() == []
    assert [(dead.name, dead.reason) for dead in spool.dead()] == [(name, "unknown")]
    assert_nothing_uncounted(spool)


# Processes


WRITER = """
import sys
from steadcast.client.spool import Spool
from steadcast.client.spooled import Request
spool = Spool(sys.argv[1])
for number in range(int(sys.argv[2])):
    name = spool.put(Request("/v1/hooks/claude", {}, b"%s-%d" % (sys.argv[3].encode(), number) * 50))
    print(name, flush=True)
"""


def start_writer(folder: str, count: int, tag: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, folder, str(count), tag]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("after", [1, 7, 40])
def test_a_writer_killed_in_the_middle_loses_nothing_that_it_was_told_is_spooled(
    spool: Spool, after: int
) -> None:
    with start_writer(spool.folder, 100_000, "w") as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline().strip() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        told += [line.strip() for line in writer.stdout if line.endswith("\n")]
    waiting = spool.names()
    assert set(told) <= set(waiting)
    assert len(waiting) <= len(told) + 1
    assert len(bodies(spool)) == len(waiting)
    assert spool.statistics()["dropped"][UNREADABLE] == 0


def test_many_writers_at_once_lose_and_mix_up_nothing(spool: Spool) -> None:
    writers = [start_writer(spool.folder, 40, str(number)) for number in range(6)]
    for writer in writers:
        with writer:
            writer.communicate()
    found = bodies(spool)
    assert len(found) == 240
    for number in range(6):
        mine = [body for body in found if body.startswith(b"%d-" % number)]
        assert mine == [b"%d-%d" % (number, place) * 50 for place in range(40)]
    assert_nothing_uncounted(spool)


def test_threads_of_one_process_may_share_a_spool(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), max_entries=50)

    def churn() -> None:
        for _ in range(60):
            name = spool.put(request())
            if name is not None:
                spool.delivered(name)

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spool.statistics()["accepted"] == 240
    assert_nothing_uncounted(spool)


def test_where_an_entry_can_be_written_it_can_be_counted_also_while_the_folders_are_made(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer that finds `tmp` before `counts` would count its entry nowhere."""
    folder = Path(spool.folder)
    make = os.makedirs
    missing: list[str] = []

    def made(path: str, **how: Any) -> None:
        make(path, **how)
        if (folder / "tmp").exists():
            missing.extend(part for part in ("new", "dead", "counts") if not (folder / part).exists())

    monkeypatch.setattr(os, "makedirs", made)
    spool.put(request())
    assert missing == []


# Properties


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.booleans(), st.integers(0, 400)),
        st.tuples(st.just("deliver"), st.integers(0, 9)),
        st.tuples(st.just("refuse"), st.integers(0, 9)),
        st.tuples(st.just("break"), st.integers(0, 9)),
        st.tuples(st.just("take"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("redrive")),
    ),
    max_size=25,
)


def act(spool: Spool, action: tuple[Any, ...], clock: list[float]) -> None:
    names = spool.names()
    match action:
        case ("put", critical, size):
            spool.put(request(b"x" * size, critical=critical))
        case ("wait", seconds):
            clock[0] += seconds
        case ("redrive",):
            spool.redrive()
        case (what, place) if place < len(names):
            name = names[place]
            if what == "break":
                Path(spool.folder, "new", name).write_bytes(b"broken")
            else:
                {"deliver": spool.delivered, "take": spool.take}.get(
                    what, lambda each: spool.refuse(each, "no")
                )(name)


@given(ACTIONS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_accepted_is_always_pending_plus_delivered_plus_dropped_by_reason(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[Any, ...]]
) -> None:
    clock = [time.time()]
    folder = str(tmp_path_factory.mktemp("spool"))
    spools = [
        Spool(folder, max_entries=5, max_bytes=1_500, max_age=60, max_dead=4, now=lambda: clock[0])
        for _ in range(2)
    ]
    for number, action in enumerate(actions):
        act(spools[number % 2], action, clock)
        assert_nothing_uncounted(spools[0])
        told = spools[1].statistics()
        assert told["pending"] <= 5
        assert told["pending_bytes"] <= 1_500
        assert told["dead"] <= 4


@given(
    st.from_regex(r"/[!-~]{0,50}", fullmatch=True),
    st.dictionaries(st.from_regex(r"[a-z-]{1,20}", fullmatch=True), st.from_regex(r"[ -~]*", fullmatch=True)),
    st.binary(max_size=200),
    st.booleans(),
)
def test_every_request_is_read_as_it_was_written(
    path: str, headers: dict[str, str], body: bytes, critical: bool
) -> None:
    content = encode(Request(path, headers, body))
    whole = Request(path, headers, body, critical=critical)
    read = decode(entry_name(stamp(), whole, len(content)), content)
    assert (read.path, read.headers, read.body, read.critical) == (path, headers, body, critical)


def test_a_process_without_file_descriptors_gives_up_no_entry(spool: Spool) -> None:
    spool.put(request(b"kept"))
    [name] = spool.names()
    with no_descriptors_left(), pytest.raises(OSError, match="Too many open files"):
        spool.take(name)
    assert bodies(spool) == [b"kept"]
    assert_nothing_uncounted(spool)


@given(st.binary(max_size=100))
def test_any_content_is_a_request_or_unreadable(content: bytes) -> None:
    name = entry_name(stamp(), request(), len(content))
    try:
        read = decode(name, content)
    except Unreadable:
        return
    assert read.path.startswith("/")


# Where it stands


def test_the_spool_stands_where_the_environment_says(tmp_path: Path) -> None:
    assert spool_root({"STEADCAST_SPOOL": "/x/y", "HOME": "/h"}) == "/x/y"
    assert spool_root({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == "/s/steadcast/spool"
    assert spool_root({"XDG_STATE_HOME": "relative", "HOME": "/h"}) == "/h/.local/state/steadcast/spool"
    assert spool_root({"HOME": "/h"}) == "/h/.local/state/steadcast/spool"


def test_without_any_home_the_spool_is_a_private_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    root = spool_root({"TMPDIR": str(tmp_path)})
    assert root.startswith(str(tmp_path))
    assert stat.S_IMODE((tmp_path / f"steadcast-{os.getuid()}").stat().st_mode) == 0o700


def test_a_temporary_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    mine = os.getuid()
    (tmp_path / f"steadcast-{mine + 1}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(PermissionError):
        spool_root({"TMPDIR": str(tmp_path)})


def test_a_dead_file_is_one_line_of_json_before_the_entry(spool: Spool) -> None:
    name = spool.put(request(b"body"))
    assert name is not None
    spool.refuse(name, "no")
    head, _, rest = Path(spool.folder, "dead", name).read_bytes().partition(b"\n")
    assert set(json.loads(head)) == {"reason", "at"}
    assert rest == encode(request(b"body"))
