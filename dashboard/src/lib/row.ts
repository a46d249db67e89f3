/** What the feed shows: an event, or a loss at its place. Pure. */

import type { Lane } from "@steadcast/client";
import type { Loss, SeenEvent } from "./contract.js";
import { hue } from "./format.js";
import { fieldsOf } from "./seen.js";

export interface EventRow {
  readonly kind: "event";
  /** Counts the rows of this page. */
  readonly serial: number;
  readonly event: SeenEvent;
  readonly lane: Lane;
  readonly epoch: string;
  /** The event's time in milliseconds; NaN where it is none. */
  readonly time: number;
  /** The data as compact JSON. */
  readonly text: string;
  /** The data in one line, without what the row shows anyway. */
  readonly summary: string;
  /** Who it belongs to: its session where it names one, else its source. */
  readonly hue: number;
}

export interface LossRow {
  readonly kind: "loss";
  readonly serial: number;
  readonly loss: Loss;
  /** When this page learned of it, in milliseconds of Unix time. */
  readonly at: number;
}

export type Row = EventRow | LossRow;

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
]);

/** Objects whose own name says nothing. */
const INPUTS = new Set(["tool_input", "tool_response"]);

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
  const all = fieldsOf(data);
  return (all ? pairs(all, "") : words(data)).slice(0, SUMMARY);
}

/** Who an event belongs to: its colour is theirs. */
export function ownerOf({ source, session }: SeenEvent): string {
  return session ?? source;
}

export function eventRow(serial: number, event: SeenEvent): EventRow {
  return {
    kind: "event",
    serial,
    event,
    lane: event.lane,
    epoch: event.epoch,
    time: event.publishedAt,
    text: JSON.stringify(event.data) ?? "null",
    summary: summaryOf(event.data),
    hue: hue(ownerOf(event)),
  };
}
