"""A Publisher that is called in the middle of itself: from signal handlers, and from logging handlers.

Each is a program of its own, since what goes wrong here hangs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.fake_ingest import FakeIngest, problem

if TYPE_CHECKING:
    from pathlib import Path

SIGNALLED = """
import json, signal, sys
from steadcast.client.publisher import Publisher
from steadcast.client.spool import Spool

publisher = Publisher("http://127.0.0.1:9", spool=Spool(sys.argv[1], max_entries=1))
publisher.close()
signal.signal(signal.SIGUSR1, lambda *_: publisher.publish("s", type="signalled"))
left = [signal.SIGUSR1]

def at_a_removal(what, given):
    if what == "os.remove" and "/new/" in str(given[0]) and left:
        signal.raise_signal(left.pop())

sys.addaudithook(at_a_removal)
for number in range(3):
    publisher.publish("s", type="t", data=number)
print(json.dumps(publisher.statistics() | {"left": len(left)}))
"""

LOGGING = """
import json, logging, sys, threading, time
from steadcast.client.publisher import Publisher

class Published(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage().partition(":")[0])
        publisher.publish("log", type="line", data=record.getMessage())

lines = []
handler = Published()
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel(logging.INFO)
publisher = Publisher("http://127.0.0.1:9", spool=sys.argv[1])
"""

WHILE_IT_IS_AWAY = """
about_to_say = threading.Event()
logging.getLogger("steadcast.publisher").addFilter(lambda _: about_to_say.set() or True)
with handler.lock:  # as `Handler.handle` holds it
    publisher.publish("s", type="t")
    about_to_say.wait(60)
    handler.emit(logging.makeLogRecord({"msg": "hello"}))
result = publisher.close()
print(json.dumps({"lines": lines, "spooled": result.spooled}))
"""

WITHOUT_A_DISK = """
publisher.close()
logging.getLogger("app").info("hello")
print(json.dumps({"lines": lines, "dropped": publisher.statistics()["dropped"]}))
"""

WHAT_ITS_STREAM_REFUSES = """
publisher = Publisher(sys.argv[2], spool=sys.argv[1])
logging.getLogger("app").info("hello")
deadline = time.monotonic() + 60
while not publisher.statistics()["unsaid"] and len(lines) < 50 and time.monotonic() < deadline:
    time.sleep(0.01)
found = publisher.statistics()
print(json.dumps({"lines": lines} | {name: found[name] for name in ("published", "dropped", "unsaid")}))
"""

FROM_ANOTHER_THREAD = """
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue

logging.getLogger().removeHandler(handler)
queue = SimpleQueue()
logging.getLogger().addHandler(QueueHandler(queue))
QueueListener(queue, handler).start()
"""


def told(program: str, spool: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-c", program, str(spool), *more]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_signal_handler_publishes_while_its_thread_makes_room_in_the_spool(tmp_path: Path) -> None:
    found = told(SIGNALLED, tmp_path)
    assert found["left"] == 0
    assert found["published"] == found["spooled"] + sum(found["dropped"].values()) == 4
    assert found["spooled"] <= 2  # the one that it holds, and the one in hand


def test_a_logging_handler_that_publishes_never_hangs_its_program(tmp_path: Path) -> None:
    """The publisher's thread says that the server is away while another thread is inside the handler."""
    found = told(LOGGING + WHILE_IT_IS_AWAY, tmp_path)
    assert found == {"lines": ["hello", "the server is away"], "spooled": 3}


def test_what_a_publisher_logs_of_itself_brings_no_line_after_the_other(tmp_path: Path) -> None:
    """Where the disk refuses, it refuses the line that says so as well."""
    (tmp_path / "file").touch()
    found = told(LOGGING + WITHOUT_A_DISK, tmp_path / "file" / "spool")
    assert found == {"lines": ["hello", "the spool refuses"], "dropped": {"closed": 2}}


@pytest.mark.parametrize("way", ["", FROM_ANOTHER_THREAD], ids=["at once", "from another thread"])
def test_a_logging_handler_that_publishes_where_it_may_not_does_not_feed_itself(
    tmp_path: Path, way: str
) -> None:
    """The line that an event was refused is an event that is refused; the line that says so is left out."""
    with FakeIngest() as server:
        server.rule = lambda _: problem(403, "forbidden", temporary=False)
        found = told(LOGGING + way + WHAT_ITS_STREAM_REFUSES, tmp_path, server.url)
    assert found.pop("lines")[0] == "hello"
    assert found == {"published": 2, "dropped": {"refused": 2}, "unsaid": 1}
