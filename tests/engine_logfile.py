"""A look into a log's file past the engine: what must hold there whatever happened, and an old layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from steadcast.core.dedup import old_identity
from steadcast.engines.sqlite_schema import OFFSET_BITS, OFFSET_MASK


def check(path: Path) -> None:
    """Assert that heads, trim marks, sizes, events and ids of a file agree with each other."""
    conn = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    assert conn.execute("PRAGMA integrity_check").get == "ok"
    seen = 0
    lanes: list[Any] = conn.execute("SELECT number, head, trimmed, bytes FROM lanes").fetchall()
    for number, head, trimmed, size in lanes:
        rows: list[Any] = conn.execute(
            "SELECT key & ?, octet_length(event) FROM events WHERE key >> ? = ? ORDER BY key",
            (OFFSET_MASK, OFFSET_BITS, number),
        ).fetchall()
        assert [offset for offset, _ in rows] == list(range(trimmed + 1, head + 1))
        assert size == sum(length for _, length in rows)
        seen += len(rows)
    assert seen == conn.execute("SELECT count(*) FROM events").get
    conn.execute("CREATE TEMP VIEW known AS SELECT * FROM ids")
    if conn.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'old_ids'").get:
        conn.execute("DROP VIEW known")
        conn.execute("CREATE TEMP VIEW known AS SELECT * FROM ids UNION ALL SELECT * FROM old_ids")
    nameless = "SELECT count(*) FROM events WHERE key NOT IN (SELECT key FROM known)"
    assert conn.execute(nameless).get == 0
    doubled = "SELECT count(*) FROM (SELECT key FROM known GROUP BY key HAVING count(*) > 1)"
    assert conn.execute(doubled).get == 0
    lost = (
        "SELECT count(*) FROM known JOIN lanes ON lanes.number = known.key >> ?1"
        " WHERE known.key & ?2 > lanes.head"
    )
    assert conn.execute(lost, (OFFSET_BITS, OFFSET_MASK)).get == 0
    assert conn.execute("SELECT count(*) FROM lanes").get % 2 == 0
    conn.close()


def as_version_0(path: Path) -> None:
    """Rewrite a closed log in the layout of version 0: old names, no sizes, no probe, no stamp."""
    conn = apsw.Connection(str(path))
    names: list[Any] = conn.execute("SELECT identity FROM ids").fetchall()
    old = [(old_identity(*_parts(name)), name) for (name,) in names]
    conn.executemany("UPDATE ids SET identity = ? WHERE identity = ?", old)
    conn.execute("ALTER TABLE lanes DROP COLUMN bytes; DROP TABLE probe")
    conn.pragma("user_version", 0)
    conn.pragma("application_id", 0)
    conn.close()


def _parts(identity: bytes) -> tuple[str, str]:
    """Take a short identity apart into source and id."""
    text, _, length = identity.decode().rpartition("\0")
    return text[int(length) :], text[: int(length)]
