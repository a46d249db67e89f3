/** Agents as swimlanes over time: what stands where, for a width in pixels. Pure. */

import type { Call, Mark, Session } from "./sessions_model.js";
import { endOf, type TreeNode, treeOf } from "./sessions_state.js";

/** Milliseconds of Unix time. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

export interface Box {
  readonly x: number;
  readonly width: number;
  /** Rows of a lane are for calls that run side by side. */
  readonly row: number;
  readonly call: Call;
  /** How many calls it stands for, where they are too close to be told apart. */
  readonly calls: number;
  readonly failed: boolean;
}

export interface Lane {
  readonly node: TreeNode;
  /** From where to where the agent lived. */
  readonly x: number;
  readonly width: number;
  readonly rows: number;
  readonly boxes: readonly Box[];
  readonly marks: readonly { readonly x: number; readonly mark: Mark }[];
}

export interface Tick {
  readonly x: number;
  readonly at: number;
}

/** Calls side by side beyond this share the last row. */
const MOST_ROWS = 4;
/** The narrowest box, in pixels; calls that are closer are one box. */
const NARROW = 3;
/** The shortest range that can be looked at, in milliseconds. */
const SHORTEST = 500;

/** The whole of a session; `now` is its end while it works. */
export function wholeOf(session: Session, now: number, open: boolean): Range {
  const to = open ? Math.max(now, session.last) : session.last;
  const length = Math.max(to - session.start, 1_000);
  // A little room, so that the first and the last mark can be seen.
  return { from: session.start - length * 0.01, to: session.start + length * 1.02 };
}

/** The lanes of the agents that live in a range. */
export function lanesOf(session: Session, range: Range, width: number, now: number): Lane[] {
  const scale = scaleOf(range, width);
  return treeOf(session).map((node) => {
    const { agent } = node;
    const calls = session.calls.filter((call) => call.agent === agent.id);
    const [x, right] = within(scale(agent.start), scale(endOf(session, agent, now)), width);
    const { boxes, rows } = boxesOf(calls, range, scale, width, now);
    const marks = session.marks
      .filter((mark) => mark.agent === agent.id && mark.at >= range.from && mark.at <= range.to)
      .map((mark) => ({ x: scale(mark.at), mark }));
    return { node, x, width: Math.max(0, right - x), rows, boxes, marks };
  });
}

function boxesOf(
  calls: readonly Call[],
  range: Range,
  scale: (at: number) => number,
  width: number,
  now: number,
): { boxes: Box[]; rows: number } {
  const boxes: Box[] = [];
  /** Where each row is free again: in time, so that zooming moves no call to another row. */
  const free: number[] = [];
  /** The last box of each row. */
  const last = new Map<number, number>();
  for (const call of calls) {
    const end = call.end ?? now;
    const row = rowFor(free, call.start);
    free[row] = Math.max(free[row] ?? 0, end);
    if (end < range.from || call.start > range.to) continue;
    const [x, right] = within(scale(call.start), scale(end), width);
    const before = last.get(row);
    const box = {
      x,
      width: Math.max(NARROW, right - x),
      row,
      call,
      calls: 1,
      failed: failedIs(call),
    };
    const merged = before === undefined ? null : mergedWith(boxes[before] as Box, box);
    if (merged && before !== undefined) boxes[before] = merged;
    else last.set(row, boxes.push(box) - 1);
  }
  return { boxes, rows: Math.max(1, free.length) };
}

function failedIs({ outcome }: Call): boolean {
  return outcome === "failed" || outcome === "denied";
}

function rowFor(free: readonly number[], start: number): number {
  const row = free.findIndex((until) => until <= start);
  return row >= 0 ? row : Math.min(free.length, MOST_ROWS - 1);
}

/** One box for two where both are too narrow to be told apart. */
function mergedWith(before: Box, box: Box): Box | null {
  if (box.x - (before.x + before.width) >= 0 || box.width > 2 * NARROW) return null;
  if (before.width > 2 * NARROW && before.calls === 1) return null;
  const width = Math.max(before.width, box.x + box.width - before.x);
  return { ...before, width, calls: before.calls + 1, failed: before.failed || box.failed };
}

/** From time to pixels. */
export function scaleOf({ from, to }: Range, width: number): (at: number) => number {
  return (at) => ((at - from) / (to - from)) * width;
}

/** From pixels to time. */
export function timeAt(range: Range, width: number, x: number): number {
  return range.from + (x / Math.max(1, width)) * (range.to - range.from);
}

function within(x: number, right: number, width: number): [number, number] {
  return [Math.min(Math.max(0, x), width), Math.max(0, Math.min(width, right))];
}

/** Look closer (`factor` below 1) or from further away, around a moment, but never beyond the whole. */
export function zoomed(range: Range, whole: Range, factor: number, around: number): Range {
  const most = whole.to - whole.from;
  const length = Math.min(most, Math.max(SHORTEST, (range.to - range.from) * factor));
  const share = (around - range.from) / (range.to - range.from);
  return kept({ from: around - share * length, to: around + (1 - share) * length }, whole);
}

/** Move by a share of what is seen. */
export function panned({ from, to }: Range, whole: Range, share: number): Range {
  const by = (to - from) * share;
  return kept({ from: from + by, to: to + by }, whole);
}

/** Look at what lies between two moments. */
export function brushed(one: number, other: number, whole: Range): Range {
  const middle = (one + other) / 2;
  const half = Math.max(SHORTEST, Math.abs(one - other)) / 2;
  return kept({ from: middle - half, to: middle + half }, whole);
}

function kept({ from, to }: Range, whole: Range): Range {
  const length = Math.min(to - from, whole.to - whole.from);
  const start = Math.min(Math.max(from, whole.from), whole.to - length);
  return { from: start, to: start + length };
}

const STEPS = [
  100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
  900_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 28_800_000, 86_400_000,
];

/** Round moments, at least `apart` pixels from each other. */
export function ticksOf(range: Range, width: number, apart = 90): Tick[] {
  const length = range.to - range.from;
  const least = (length * apart) / Math.max(apart, width);
  const day = 86_400_000;
  const step = STEPS.find((each) => each >= least) ?? Math.ceil(least / day) * day;
  const offset = new Date(range.from).getTimezoneOffset() * 60_000;
  const scale = scaleOf(range, width);
  const ticks: Tick[] = [];
  let at = Math.ceil((range.from - offset) / step) * step + offset;
  for (; at <= range.to; at += step) ticks.push({ x: scale(at), at });
  return ticks;
}
