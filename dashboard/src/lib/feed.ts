/**
 * The rows of one stream, bounded. Pure.
 *
 * A lane's rows keep the lane's order. What comes live stands at the end. During a replay critical events
 * come before normal ones that are older: there the lanes are merged by time, but never into what was
 * shown before that replay.
 */

import type { Lane } from "@steadcast/client";
import type { Loss, SeenEvent } from "./contract.js";
import type { Matcher } from "./filter.js";
import { type EventRow, eventRow, type Row } from "./row.js";

export interface FeedLimits {
  /** Rows that are kept while the feed follows. */
  readonly rows?: number;
  /** Rows that are kept while somebody reads further up. */
  readonly heldRows?: number;
  /** Characters of JSON that all rows together may have. */
  readonly text?: number;
}

export class Feed {
  /** Rows that left, oldest first, since this feed began; the log still has them. */
  dropped = 0;
  /** Losses among the rows. */
  losses = 0;
  /** Events that came in. */
  applied = 0;
  private rows: Row[] = [];
  private text = 0;
  private serial = 0;
  /** Rows below this index are not merged with any more. */
  private floor = 0;
  private held = false;
  private readonly limits: Required<FeedLimits>;

  constructor({ rows = 2_000, heldRows = 10_000, text = 32_000_000 }: FeedLimits = {}) {
    this.limits = { rows, heldRows, text };
  }

  get size(): number {
    return this.rows.length;
  }

  add(events: readonly SeenEvent[], replaying: boolean): void {
    for (const event of events) {
      const row = eventRow(this.next(), event);
      this.text += row.text.length;
      this.applied += 1;
      if (replaying) this.rows.splice(this.placeFor(row), 0, row);
      else this.rows.push(row);
    }
    if (!replaying) this.floor = this.rows.length;
    this.trim();
  }

  /** Show a loss where it happened: after everything that came before it. */
  lose(loss: Loss, at: number): void {
    this.rows.push({ kind: "loss", serial: this.next(), loss, at });
    this.losses += 1;
    this.floor = this.rows.length;
    this.trim();
  }

  /** Take a lane's events off, whose log is gone; gives the offset of the last one. */
  clear(lane: Lane): number | null {
    const gone = this.rows.filter((row) => row.kind === "event" && row.lane === lane) as EventRow[];
    this.rows = this.rows.filter((row) => row.kind === "loss" || row.lane !== lane);
    this.floor = this.rows.length;
    for (const row of gone) this.text -= row.text.length;
    return gone.at(-1)?.event.offset ?? null;
  }

  /** Keep more rows, because somebody reads further up. */
  hold(held: boolean): void {
    this.held = held;
    this.trim();
  }

  /** The rows that match, oldest first; losses always do. */
  shown(matches: Matcher | null): readonly Row[] {
    if (!matches) return this.rows.slice();
    return this.rows.filter((row) => row.kind === "loss" || matches(row));
  }

  /** The events among the rows, oldest first. */
  events(): readonly SeenEvent[] {
    return this.rows.flatMap((row) => (row.kind === "event" ? [row.event] : []));
  }

  private next(): number {
    this.serial += 1;
    return this.serial;
  }

  private placeFor(row: EventRow): number {
    let index = this.rows.length;
    for (; index > this.floor; index -= 1) {
      const before = this.rows[index - 1];
      // Comparing with NaN is false: an event without a time stays where it came.
      if (before?.kind !== "event" || before.lane === row.lane || !(before.time > row.time)) break;
    }
    return index;
  }

  private trim(): void {
    const limit = this.held ? this.limits.heldRows : this.limits.rows;
    let gone = Math.max(0, this.rows.length - limit);
    let text = this.text - textOf(this.rows.slice(0, gone));
    // The newest row stays, however large it is.
    while (text > this.limits.text && gone < this.rows.length - 1) {
      text -= textOf(this.rows.slice(gone, gone + 1));
      gone += 1;
    }
    if (gone === 0) return;
    const out = this.rows.splice(0, gone);
    this.losses -= out.filter(({ kind }) => kind === "loss").length;
    this.text = text;
    this.dropped += gone;
    this.floor = Math.max(0, this.floor - gone);
  }
}

function textOf(rows: readonly Row[]): number {
  return rows.reduce((sum, row) => sum + (row.kind === "event" ? row.text.length : 0), 0);
}
