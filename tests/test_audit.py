"""`scripts/audit.py`: what is known is told and fails, and without a network it says so and passes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]


class Lists(ThreadingHTTPServer):
    """Both lists of known vulnerabilities: OSV's API and npm's."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.python: set[str] = set()
        self.web: set[str] = set()
        self.asked: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Lists

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/querybatch"):
            names = [each["package"]["name"] for each in json.loads(body)["queries"]]
            self.server.asked.update(names)
            vulnerable = {"vulns": [{"id": "GHSA-made-up", "modified": "2026-01-01T00:00:00Z"}]}
            self.answer({"results": [vulnerable if name in self.server.python else {} for name in names]})
        else:
            advisory = {
                "id": 1,
                "url": "https://x.example",
                "title": "made up",
                "severity": "high",
                "vulnerable_versions": "*",
                "cwe": [],
                "cvss": {"score": 0},
            }
            self.answer({name: [advisory] for name in self.server.web})

    def do_GET(self) -> None:
        name = unquote(self.path[1:])  # what npm asks: which versions there are
        advisory = {"id": "GHSA-made-up", "modified": "2026-01-01T00:00:00Z", "summary": "made up"}
        self.answer({"name": name, "versions": {}} if name in self.server.web else advisory)

    def answer(self, body: Any) -> None:
        sent = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def lists() -> Iterator[Lists]:
    with Lists() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def audit(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "audit.py", "--service-url", url],
        env={**os.environ, "npm_config_registry": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_where_nothing_is_known_it_passes(lists: Lists) -> None:
    done = audit(lists.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no known vulnerabilities" in done.stdout
    assert "Found 0 vulnerable packages" in done.stdout
    assert {"msgspec", "starlette", "pyjwt"} <= lists.asked


def test_known_vulnerabilities_are_told_and_fail(lists: Lists) -> None:
    lists.python.add("msgspec")
    lists.web.add("socket.io-client")
    done = audit(lists.url)
    assert done.returncode == 1
    assert "msgspec" in done.stdout
    # npm tells the range of versions, or none, as its cache knows them.
    assert re.search(r"^socket\.io-client \S*: high: made up$", done.stdout, re.MULTILINE)


def test_without_a_network_it_says_so_and_passes() -> None:
    done = audit("http://127.0.0.1:9")
    assert done.returncode == 0
    assert done.stdout.count("can't be reached") == 2
