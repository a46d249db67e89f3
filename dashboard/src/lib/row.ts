/** What the feed shows: an event, a tool call with its outcome, or a loss at its place. Pure. */

import { callOf, type Phase } from "./calls.js";
import type { Loss, SeenEvent } from "./contract.js";
import { fieldsOf, hookOf, weightOf } from "./seen.js";

export interface EventRow {
  readonly kind: "event";
  /** Names the row within its stream. */
  readonly key: string;
  readonly event: SeenEvent;
  /** When it was published, in milliseconds of Unix time; NaN where nobody knows. */
  readonly time: number;
  /** Which part of a tool call the event is. */
  readonly phase: Phase | null;
  /** The call's end, where that is folded into this row. */
  readonly end: SeenEvent | null;
  /** About what it takes in memory, in characters. */
  readonly weight: number;
}

export interface LossRow {
  readonly kind: "loss";
  readonly key: string;
  readonly loss: Loss;
  /** When this page learned of it, in milliseconds of Unix time. */
  readonly at: number;
}

export type Row = EventRow | LossRow;

export function eventRow(event: SeenEvent): EventRow {
  const key = `${event.lane}:${event.offset}`;
  const weight = weightOf(event.data);
  const time = event.publishedAt;
  return { kind: "event", key, event, time, phase: callOf(event), end: null, weight };
}

/** About what a row takes in memory, in characters. */
export function weigh(row: Row): number {
  return row.kind === "event" ? row.weight : 0;
}

/** Rows made of two events, so that the same pair is the same row in every frame. */
const folded = new WeakMap<SeenEvent, EventRow>();

function fold(row: EventRow, end: SeenEvent): EventRow {
  const known = folded.get(row.event);
  if (known?.end === end) return known;
  const made = { ...row, end };
  folded.set(row.event, made);
  return made;
}

/**
 * Join two stretches of a stream, the second of which follows the first in each lane.
 *
 * One lane's rows may reach back further than the other's: they are merged by time, each lane in its order.
 */
export function weave(first: readonly Row[], second: readonly Row[]): Row[] {
  const last = first.at(-1);
  const next = second[0];
  if (!last || !next || !(timeOf(last) > timeOf(next))) return [...first, ...second];
  const waiting = { critical: 0, normal: 0 };
  for (const row of first) if (row.kind === "event") waiting[row.event.lane] += 1;
  const out: Row[] = [];
  let from = 0;
  for (const row of first) {
    for (let other = second[from]; other && goesBefore(other, row); other = second[from]) {
      out.push(other);
      from += 1;
    }
    out.push(row);
    if (row.kind === "event") waiting[row.event.lane] -= 1;
  }
  for (const other of second.slice(from)) out.push(other);
  return out;

  function goesBefore(other: Row, row: Row): boolean {
    const free = other.kind === "loss" || waiting[other.event.lane] === 0;
    return free && timeOf(other) < timeOf(row);
  }
}

function timeOf(row: Row): number {
  return row.kind === "event" ? row.time : row.at;
}

/** Where calls began that haven't ended yet, in the order of their beginnings. */
class Open {
  private readonly begun = new Map<string, number[]>();

  begins(call: string, index: number): void {
    const waiting = this.begun.get(call);
    if (waiting) waiting.push(index);
    else this.begun.set(call, [index]);
  }

  ends(call: string): number | undefined {
    return this.begun.get(call)?.shift();
  }
}

/** Put the end of each tool call into the row of its beginning. */
export function foldCalls(rows: readonly Row[]): Row[] {
  const open = new Open();
  const out: Row[] = [];
  for (const row of rows) {
    const phase = row.kind === "event" ? row.phase : null;
    const index = phase?.ends ? open.ends(phase.call) : undefined;
    const begun = index === undefined ? undefined : out[index];
    if (index !== undefined && begun?.kind === "event" && row.kind === "event") {
      out[index] = fold(begun, row.event);
      continue;
    }
    if (phase && !phase.ends) open.begins(phase.call, out.length);
    out.push(row);
  }
  return out;
}

const SUMMARY = 300;
/** A hook's fields that say the same in every event, or that the row shows in its own columns. */
const COMMON = new Set([
  "session_id",
  "transcript_path",
  "cwd",
  "hook_event_name",
  "permission_mode",
  "prompt_id",
  "tool_name",
  "tool_use_id",
  "agent_id",
  "agent_type",
  "duration_ms",
]);

/** Objects whose own name says nothing. */
const INPUTS = new Set(["tool_input", "tool_parameters", "tool_response"]);

function words(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

/** Fields as "name: value", those of an object in it as "name.field: value"; not all of a long one. */
function pairs(all: { readonly [name: string]: unknown }, prefix: string): string {
  let line = "";
  for (const [name, value] of Object.entries(all)) {
    if (COMMON.has(name)) continue;
    const inner = prefix === "" ? fieldsOf(value) : null;
    const outer = INPUTS.has(name) ? " " : `${name}.`;
    const part = inner ? pairs(inner, outer) : `${prefix.trimStart()}${name}: ${words(value)}`;
    line += `${line && part && " · "}${part}`;
    if (line.length >= SUMMARY) break;
  }
  return line;
}

/** The data in one line of at most 300 characters, without what the row shows anyway. */
export function summaryOf(data: unknown): string {
  if (data === null || data === undefined) return "";
  const all = hookOf(data);
  return (all ? pairs(all, "") : words(data)).slice(0, SUMMARY);
}

/** Who an event belongs to: its colour is theirs. */
export function ownerOf({ source, session }: SeenEvent): string {
  return session ?? source;
}
