"""The readers of what comes from outside, under a fuzzer; STEADCAST_FUZZ says for how many seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = int(os.environ.get("STEADCAST_FUZZ", "60"))
ROOT = Path(__file__).parents[2]
SEEDS = [
    b'\x02{"stream":"s","events":[{"id":"1","source":"s","type":"t","data":{"a":[1]},"priority":"critical"}]}',
    b'\x03{"stream":"s","cursors":{"normal":["e",1,"id"]},"from":{"last":5}}',
    b'\x05{"stream":"s","lane":"normal","epoch":"e","offset":1}',
    b'\x06{"stream":"s","lane":"normal","epoch":"e","after":0,"upto":1,"events":[]}',
    b'\x08{"hook_event_name":"PreToolUse","session_id":"s","tool_name":"Bash","tool_input":{}}',
    b'\x09{"namespace":"/","event":"x","data":{"event":"x","type":"t","subtype":"u","data":{}}}',
    b'\x0a[{"specversion":"1.0","id":"1","source":"s","type":"t","time":"2026-01-31T12:00:00Z"}]',
    b"\x0cce-id: 1\nce-source: s\nce-type: t\nce-specversion: 1.0\n\n{}",
    b"\x0dEPOCH:1:2",
    b'\x01452-/admin,13["x",{"_placeholder":true,"num":0}]',
    b"\x004hello",
    b'\x12\x81\xc0\x00\x00\x00\x0042["ack",{"stream":"s","lane":"normal","epoch":"e1","offset":7}]',
]

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="the fuzzer has no build for this Python; the properties stay"
)


def test_no_bytes_make_a_reader_fail_but_by_a_refusal_of_our_own(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / f"seed{number}").write_bytes(seed)
    limits = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=2000"]
    command = [sys.executable, "-m", "tests.hostile.fuzz_target", *limits, "-print_final_stats=1"]
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/", str(corpus)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS + 120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    executed = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    assert executed, done.stderr[-2000:]
    assert int(executed.group(1)) > len(SEEDS), "the fuzzer ran"
