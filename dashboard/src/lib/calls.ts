/** Tool calls of coding agents: which events begin and end one, and how it went. Pure. */

import type { SeenEvent } from "./contract.js";
import { fieldsOf, textOf } from "./seen.js";

/** An event's part in a tool call. */
export interface Phase {
  /** The same for the beginning and the end of one call. */
  readonly call: string;
  readonly ends: boolean;
}

/** How a call went; `duration` in milliseconds, null where it can't be told. */
export interface Call {
  readonly failed: boolean;
  readonly duration: number | null;
}

/** Claude Code's hooks, and those of Claude MPM. */
const ENDS: ReadonlyMap<string, boolean> = new Map([
  ["claude.PreToolUse", false],
  ["claude.PostToolUse", true],
  ["claude.PostToolUseFailure", true],
  ["hook.pre_tool", false],
  ["hook.post_tool", true],
]);
const FAILURES: ReadonlySet<string> = new Set([
  "claude.PostToolUseFailure",
  "claude.StopFailure",
  "claude.PermissionDenied",
]);

/** Give an event's part in a tool call, or null. Calls without an id are told apart by what was asked. */
export function callOf(event: SeenEvent): Phase | null {
  const ends = ENDS.get(event.type);
  if (ends === undefined) return null;
  const outer = fieldsOf(event.data);
  const id = textOf(outer, "tool_use_id") ?? textOf(outer, "correlation_id");
  if (id !== null) return { call: id, ends };
  const inner = fieldsOf(outer?.data) ?? outer;
  const asked = JSON.stringify([event.source, textOf(inner, "tool_name"), inner?.tool_input]);
  return { call: asked, ends };
}

/** Say how the call went that `end` ended. */
export function outcomeOf(begin: SeenEvent, end: SeenEvent): Call {
  const told = fieldsOf(end.data)?.duration_ms;
  const measured = end.publishedAt - begin.publishedAt;
  const duration = typeof told === "number" ? told : measured;
  return { failed: hasFailed(end), duration: duration >= 0 ? duration : null };
}

/** Whether an event tells of a failure. */
export function hasFailed({ type, data }: SeenEvent): boolean {
  if (FAILURES.has(type)) return true;
  if (ENDS.get(type) !== true) return false;
  const outer = fieldsOf(data);
  const inner = fieldsOf(outer?.tool_response) ?? fieldsOf(outer?.data);
  const code = inner?.exit_code;
  return inner?.is_error === true || (typeof code === "number" && code !== 0);
}
