/**
 * The last rows of one stream, bounded. Pure.
 *
 * A lane's rows keep the lane's order. What comes live stands at the end. During a replay critical events
 * come before normal ones that are older: there the lanes are merged by time, but never into what was
 * shown before that replay.
 */

import type { Lane } from "@steadcast/client";
import type { Loss, SeenEvent } from "./contract.js";
import { type EventRow, eventRow, type Row, weigh } from "./row.js";

export interface TailLimits {
  readonly rows?: number;
  /** What all rows together may weigh, in characters of data. */
  readonly weight?: number;
}

export class Tail {
  /** Rows that left, oldest first, since this tail began; the log still has their events. */
  dropped = 0;
  /** Losses among the rows. */
  losses = 0;
  /** Events that came in. */
  applied = 0;
  /** Is given the rows that leave, oldest first, while they are still counted as there. */
  leaving: ((rows: readonly Row[]) => void) | undefined;
  private rows: Row[] = [];
  private weight = 0;
  private told = 0;
  /** Rows below this index are not merged with any more. */
  private floor = 0;
  /** Per lane the offset behind which nothing is missing from here to the end. */
  private readonly after: { [lane in Lane]?: number } = {};
  private readonly limits: Required<TailLimits>;

  constructor({ rows = 4_000, weight = 24_000_000 }: TailLimits = {}) {
    this.limits = { rows, weight };
  }

  get size(): number {
    return this.rows.length;
  }

  /** Take in consecutive events of one lane. */
  add(events: readonly SeenEvent[], replaying: boolean): void {
    const [first] = events;
    if (first && this.after[first.lane] === undefined) this.after[first.lane] = first.offset - 1;
    for (const event of events) {
      const row = eventRow(event);
      this.weight += row.weight;
      if (replaying) this.rows.splice(this.placeFor(row), 0, row);
      else this.rows.push(row);
    }
    this.applied += events.length;
    if (!replaying) this.floor = this.rows.length;
    this.trim();
  }

  /** Show a loss where it happened: after everything that came before it. */
  lose(loss: Loss, at: number): void {
    this.told += 1;
    this.rows.push({ kind: "loss", key: `loss:${this.told}`, loss, at });
    this.losses += 1;
    this.floor = this.rows.length;
    this.trim();
  }

  /** Take a lane's events off, whose log is gone; gives the offset of the last one. */
  clear(lane: Lane): number | null {
    const gone = this.rows.filter((row) => row.kind === "event" && row.event.lane === lane);
    this.rows = this.rows.filter((row) => row.kind === "loss" || row.event.lane !== lane);
    for (const row of gone) this.weight -= weigh(row);
    const last = gone.at(-1);
    this.floor = this.rows.length;
    delete this.after[lane];
    return last?.kind === "event" ? last.event.offset : null;
  }

  /** The rows, oldest first. */
  shown(): readonly Row[] {
    return this.rows;
  }

  /** The events among the rows, oldest first. */
  events(): readonly SeenEvent[] {
    return this.rows.flatMap((row) => (row.kind === "event" ? [row.event] : []));
  }

  /** The offset behind which all of a lane is here; undefined where nothing of it ever came. */
  behind(lane: Lane): number | undefined {
    return this.after[lane];
  }

  private placeFor(row: EventRow): number {
    const { lane } = row.event;
    let index = this.rows.length;
    for (; index > this.floor; index -= 1) {
      const before = this.rows[index - 1];
      if (before?.kind !== "event" || before.event.lane === lane) break;
      // Comparing with NaN is false: an event without a time stays where it came.
      if (!(before.time > row.time)) break;
    }
    return index;
  }

  private trim(): void {
    let gone = Math.max(0, this.rows.length - this.limits.rows);
    let weight = this.weight;
    for (const row of this.rows.slice(0, gone)) weight -= weigh(row);
    // The newest row stays, however large it is.
    while (weight > this.limits.weight && gone < this.rows.length - 1) {
      const row = this.rows[gone];
      weight -= row ? weigh(row) : 0;
      gone += 1;
    }
    if (gone === 0) return;
    const out = this.rows.slice(0, gone);
    this.leaving?.(out);
    this.rows.splice(0, gone);
    this.weight = weight;
    for (const row of out) {
      if (row.kind === "loss") this.losses -= 1;
      else this.after[row.event.lane] = row.event.offset;
    }
    this.dropped += gone;
    this.floor = Math.max(0, this.floor - gone);
  }
}
