/** Events per second by type, over the last hour. Pure, and bounded: a ring of seconds for each type. */

import { hue } from "./format.js";

/** Degrees between two hues that can be told apart. */
const APART = 36;
/** Seconds that are kept. */
export const KEPT = 3_600;
/** Types that have a ring of their own; the rest is counted as one. */
export const MOST_TYPES = 64;
/** What the types beyond the limit, or beyond those that are drawn, are counted as. */
export const OTHERS = "other types";

export interface Window {
  readonly label: string;
  /** Seconds of the whole, and of one bar. */
  readonly length: number;
  readonly step: number;
}

export const WINDOWS: readonly Window[] = [
  { label: "1 min", length: 60, step: 1 },
  { label: "5 min", length: 300, step: 5 },
  { label: "60 min", length: 3_600, step: 60 },
];

export interface Series {
  readonly type: string;
  /** Events in the window. */
  readonly total: number;
  /** Events per second, of each bar. */
  readonly rates: readonly number[];
}

export interface Picture {
  /** Where each bar begins, in seconds of Unix time. */
  readonly at: readonly number[];
  /** The types with the most events first; those that have no place of their own together at the end. */
  readonly series: readonly Series[];
  readonly total: number;
  /** Events per second over the whole window, and of its highest bar. */
  readonly mean: number;
  readonly peak: number;
}

export class Pulse {
  /** Events older than what is kept, or further in the future than a clock may be wrong. */
  outside = 0;
  private readonly rings = new Map<string, Uint32Array>();
  /** The newest second that the rings reach to. */
  private head = 0;

  /** Count an event; `time` and `now` are milliseconds of Unix time. */
  add(type: string, time: number, now: number): void {
    const second = Math.floor(time / 1_000);
    this.reach(Math.floor(now / 1_000));
    if (Number.isNaN(second) || second > this.head || second <= this.head - KEPT) {
      this.outside += 1;
      return;
    }
    const ring = this.ringOf(type);
    const slot = second % KEPT;
    ring[slot] = (ring[slot] ?? 0) + 1;
  }

  /** The last `length` seconds before `now`, the `most` largest types by themselves. */
  picture({ length, step }: Window, now: number, most: number): Picture {
    this.reach(Math.floor(now / 1_000));
    // Bars stand at whole steps, so that they don't change while time passes. The last one is still filling.
    const last = Math.floor(this.head / step) * step;
    const first = last - length + step;
    const at = Array.from({ length: length / step }, (_, bar) => first + bar * step);
    const counted = [...this.rings]
      .map(([type, ring]) => ({ type, counts: at.map((from) => this.sum(ring, from, step)) }))
      .map((each) => ({ ...each, total: each.counts.reduce((sum, n) => sum + n, 0) }))
      .filter(({ total }) => total > 0)
      .sort((a, b) => Number(a.type === OTHERS) - Number(b.type === OTHERS) || b.total - a.total);
    const shown = counted.length > most ? folded(counted, most) : counted;
    const series = shown.map(({ type, counts, total }) => {
      return { type, total, rates: counts.map((n) => n / step) };
    });
    const total = series.reduce((sum, each) => sum + each.total, 0);
    const sums = at.map((_, bar) => series.reduce((sum, { rates }) => sum + (rates[bar] ?? 0), 0));
    const seconds = Math.max(1, this.head - first + 1);
    return { at, series, total, mean: total / seconds, peak: Math.max(0, ...sums) };
  }

  private sum(ring: Uint32Array, from: number, step: number): number {
    let count = 0;
    for (let second = from; second < from + step; second += 1) {
      if (second <= this.head && second > this.head - KEPT) count += ring[second % KEPT] ?? 0;
    }
    return count;
  }

  private ringOf(type: string): Uint32Array {
    const name = this.rings.has(type) || this.rings.size < MOST_TYPES ? type : OTHERS;
    const ring = this.rings.get(name) ?? new Uint32Array(KEPT);
    this.rings.set(name, ring);
    return ring;
  }

  /** Move on to a second: what falls out behind is forgotten, and types without an event go. */
  private reach(second: number): void {
    if (this.head === 0) this.head = second;
    if (second <= this.head) return;
    const from = this.head + 1;
    this.head = second;
    for (const [type, ring] of this.rings) {
      if (second - from >= KEPT) ring.fill(0);
      else for (let each = from; each <= second; each += 1) ring[each % KEPT] = 0;
      if (this.rings.size >= MOST_TYPES && ring.every((n) => n === 0)) this.rings.delete(type);
    }
  }
}

interface Counted {
  readonly type: string;
  readonly counts: readonly number[];
  readonly total: number;
}

/** Those that aren't drawn by themselves as one. */
function folded(counted: readonly Counted[], most: number): Counted[] {
  const own = counted.filter(({ type }) => type !== OTHERS).slice(0, most - 1);
  const rest = counted.filter((each) => !own.includes(each));
  const counts = (rest[0]?.counts ?? []).map((_, bar) =>
    rest.reduce((sum, each) => sum + (each.counts[bar] ?? 0), 0),
  );
  return [...own, { type: OTHERS, counts, total: rest.reduce((sum, each) => sum + each.total, 0) }];
}

/** A type's hue, once given never changed, and unlike those that were given before as long as there is room. */
export class Hues {
  private readonly given = new Map<string, number>();

  of(type: string): number {
    const known = this.given.get(type);
    if (known !== undefined) return known;
    const own = hue(type);
    const tries = Array.from({ length: 360 / APART }, (_, turn) => (own + turn * APART) % 360);
    const chosen = tries.find((each) => this.isFree(each)) ?? own;
    if (this.given.size < MOST_TYPES) this.given.set(type, chosen);
    return chosen;
  }

  private isFree(wanted: number): boolean {
    return [...this.given.values()].every((taken) => {
      const between = Math.abs(taken - wanted) % 360;
      return Math.min(between, 360 - between) >= APART - 4;
    });
  }
}

/** Each series on top of those before it, as a chart draws them. */
export function stackedUp(series: readonly Series[]): number[][] {
  const stacks: number[][] = [];
  for (const { rates } of series) {
    const below = stacks.at(-1);
    stacks.push(rates.map((rate, bar) => rate + (below?.[bar] ?? 0)));
  }
  return stacks;
}

/** Which series stands at a height of a bar; null above all of them. */
export function seriesAt(
  stacks: readonly (readonly number[])[],
  bar: number,
  height: number,
): number | null {
  if (height < 0) return null;
  const index = stacks.findIndex((stack) => height <= (stack[bar] ?? 0));
  return index < 0 ? null : index;
}

/** Events per second in a few digits. */
export function rateWords(rate: number): string {
  if (rate === 0) return "0";
  if (rate < 0.01) return "<0.01";
  if (rate < 10) return String(Number(rate.toFixed(2)));
  return rate < 100 ? rate.toFixed(1) : new Intl.NumberFormat("en").format(Math.round(rate));
}
