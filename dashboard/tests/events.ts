/** Events as the client hands them over. */

import type { Lane, Place, StreamEvent } from "@steadcast/client";
import type { SeenEvent } from "../src/lib/contract.js";
import type { EventRow, Row } from "../src/lib/row.js";
import { seen } from "../src/lib/seen.js";

/** An event whose time is `second` seconds after a fixed one. */
export function event(
  offset: number,
  second: number,
  more: Partial<StreamEvent> = {},
): StreamEvent {
  const time = new Date(Date.UTC(2026, 0, 1) + second * 1_000).toISOString();
  const id = `e${offset}`;
  return { offset, id, source: "/t", type: "t", time, priority: "normal", data: {}, ...more };
}

export function place(lane: Lane): Place {
  return { stream: "s", lane, epoch: "e1" };
}

/** An event of a lane as the page takes it in. */
export function one(
  offset: number,
  second: number,
  more: Partial<StreamEvent> = {},
  lane: Lane = "normal",
): SeenEvent {
  return seen(event(offset, second, more), place(lane), 0);
}

/** Events of a lane, as the page takes them in. */
export function taken(events: readonly StreamEvent[], at: Place): SeenEvent[] {
  return events.map((each) => seen(each, at, 0));
}

/** Rows as `normal:3`, losses by their kind. */
export function names(rows: readonly Row[]): string[] {
  return rows.map((row) => (row.kind === "loss" ? row.loss.kind : row.key));
}

export function offsets(rows: readonly Row[], lane: Lane): number[] {
  const own = rows.filter(
    (row): row is EventRow => row.kind === "event" && row.event.lane === lane,
  );
  return own.map((row) => row.event.offset);
}
