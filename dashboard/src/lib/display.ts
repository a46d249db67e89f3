/**
 * What the feed's reader has before them: the tail, or a stretch of the log that may lie far behind it. Pure.
 *
 * While somebody reads further up, rows that leave the tail are kept here, and pages of the log are put
 * before and behind them. More than the limit lets go of rows at the other end; where that end was the
 * tail, the display is detached from it until it has been read up to the tail again.
 */

import type { Lane } from "@steadcast/client";
import type { SeenEvent } from "./contract.js";
import type { Found, Offsets } from "./log.js";
import { eventRow, type Row, weave, weigh } from "./row.js";
import type { Tail } from "./tail.js";

const LANES: readonly Lane[] = ["critical", "normal"];

export interface DisplayLimits {
  readonly rows?: number;
  readonly weight?: number;
}

export class Display {
  /** Whether the newest rows of the tail stand at the end. */
  attached = true;
  private back: Row[] = [];
  private low: Offsets | null = null;
  private high: Offsets = { critical: 0, normal: 0 };
  /** The time from which on both lanes have been read; null where only the tail can tell. */
  private since: number | null = null;
  private readonly limits: Required<DisplayLimits>;

  /** `applied` gives per lane the offset that the page's subscription has applied. */
  constructor(
    private readonly tail: Tail,
    private readonly applied: () => Offsets,
    { rows = 8_000, weight = 48_000_000 }: DisplayLimits = {},
  ) {
    this.limits = { rows, weight };
  }

  /** The rows, oldest first, tool calls not folded yet. */
  rows(): readonly Row[] {
    if (!this.attached) return this.back;
    return this.back.length > 0 ? weave(this.back, this.tail.shown()) : this.tail.shown();
  }

  /** The rows from where both lanes have been read: before that, rows would seem to be missing. */
  whole(): readonly Row[] {
    const rows = this.rows();
    const since = this.since ?? this.tailSince();
    if (since === Number.NEGATIVE_INFINITY) return rows;
    const start = rows.findIndex((row) => row.kind === "event" && row.time >= since);
    return rows.filter((row, index) => index >= start || row.kind === "loss");
  }

  /** Keep what leaves the tail, because somebody reads it. */
  hold(): void {
    this.tail.leaving = (rows) => this.keep(rows);
  }

  /** Show the tail alone. */
  follow(): void {
    this.tail.leaving = undefined;
    this.back = [];
    this.low = this.since = null;
    this.attached = true;
  }

  /** Leave everything, and stand in the log at a place from which pages are read. */
  stand(at: Offsets): void {
    this.back = [];
    this.low = this.high = at;
    this.since = Number.NEGATIVE_INFINITY;
    this.attached = false;
  }

  /** Where the page before begins. */
  get before(): Offsets {
    return this.low ?? this.ends();
  }

  /** Where the page behind begins, while detached. */
  get behind(): Offsets {
    return this.high;
  }

  /** The last offsets before the tail. */
  private ends(): Offsets {
    const { tail } = this;
    const { critical, normal } = this.applied();
    return {
      critical: tail.behind("critical") ?? critical,
      normal: tail.behind("normal") ?? normal,
    };
  }

  /** Put a page before the rows; only those events that `matches` lets through. */
  prepend({ events, at, ended }: Found, matches: ((event: SeenEvent) => boolean) | null): void {
    const page = events.filter((event) => matches?.(event) ?? true).map(eventRow);
    this.back = weave(page, this.back);
    this.low = at;
    this.since = ended ? Number.NEGATIVE_INFINITY : (events[0]?.publishedAt ?? this.since);
  }

  /** Put a page behind the rows; one that reaches the tail attaches it again. */
  append({ events, at }: Found, matches: ((event: SeenEvent) => boolean) | null): void {
    const page = events.filter((event) => matches?.(event) ?? true).map(eventRow);
    this.back = weave(this.back, page);
    this.high = at;
    const ends = this.ends();
    this.attached = at.critical >= ends.critical && at.normal >= ends.normal;
    // One lane's tail may reach back further than the other's: what was read of it stands there too.
    if (this.attached) {
      this.back = this.back.filter(
        (row) => row.kind === "loss" || row.event.offset <= ends[row.event.lane],
      );
    }
  }

  /** Let go of the newest rows above the limit; whether there were any. */
  dropNewest(): boolean {
    if (this.over(this.rows()) === 0) return false;
    if (this.attached) this.detach();
    const over = this.over([...this.back].reverse());
    const gone = this.back.splice(this.back.length - over);
    this.high = edge(this.high, gone, (known, offset) => Math.min(known, offset - 1));
    return true;
  }

  /** Let go of the oldest rows above the limit; whether there were any. */
  dropOldest(): boolean {
    const over = this.over(this.back);
    const gone = this.back.splice(0, over);
    this.low = edge(this.before, gone, Math.max);
    if (over > 0) this.since = Number.NEGATIVE_INFINITY;
    return over > 0;
  }

  /** The first time of the lane that reaches back less, of those that have something before the tail. */
  private tailSince(): number {
    const ends = this.ends();
    const firsts = LANES.filter((lane) => ends[lane] > 0).map((lane) => {
      const rows = this.tail.shown();
      const first = rows.find((row) => row.kind === "event" && row.event.lane === lane);
      return first?.kind === "event" ? first.time : Number.NEGATIVE_INFINITY;
    });
    return Math.max(Number.NEGATIVE_INFINITY, ...firsts);
  }

  private keep(leaving: readonly Row[]): void {
    if (!this.attached) return;
    this.low ??= this.ends();
    if (this.over(this.rows()) > 0) this.detach();
    else this.back = weave(this.back, leaving);
  }

  private detach(): void {
    this.low ??= this.ends();
    this.back = weave(this.back, this.tail.shown());
    this.high = this.applied();
    this.attached = false;
  }

  /** How many of the first rows are to go so that the rest is within the limits. */
  private over(rows: readonly Row[]): number {
    let weight = rows.reduce((sum, row) => sum + weigh(row), 0);
    let over = Math.max(0, rows.length - this.limits.rows);
    for (const row of rows.slice(0, over)) weight -= weigh(row);
    for (; weight > this.limits.weight && over < rows.length - 1; over += 1) {
      const row = rows[over];
      weight -= row ? weigh(row) : 0;
    }
    return over;
  }
}

function edge(at: Offsets, gone: readonly Row[], pick: (a: number, b: number) => number): Offsets {
  const edges: { [lane in Lane]: number } = { ...at };
  for (const row of gone) {
    if (row.kind === "event") edges[row.event.lane] = pick(edges[row.event.lane], row.event.offset);
  }
  return edges;
}
