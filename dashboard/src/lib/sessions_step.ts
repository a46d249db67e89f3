/**
 * A hook's event in the words of the sessions view, whichever program told it. Pure.
 *
 * Claude Code's hooks come as they are (`claude.PreToolUse`, the body is the data). Claude MPM's come with the
 * same news in a box of their own: `data.subtype` names it, `data.data` has the details.
 */

import type { SeenEvent } from "./contract.js";
import { fieldsOf, textOf } from "./seen.js";

type Fields = { readonly [name: string]: unknown };

export interface Step {
  /** The hook's name as Claude Code has it. */
  readonly name: string;
  readonly session: string;
  /** The agent in it; empty for the one that the person talks to. */
  readonly agent: string;
  /** Milliseconds of Unix time. */
  readonly at: number;
  readonly program: "claude-code" | "claude-mpm";
  readonly fields: Fields;
  readonly cwd: string | null;
}

/** MPM's subtypes by the hooks that they come from. */
const SUBTYPES: { readonly [subtype: string]: string } = {
  user_prompt: "UserPromptSubmit",
  pre_tool: "PreToolUse",
  post_tool: "PostToolUse",
  notification: "Notification",
  stop: "Stop",
  subagent_start: "SubagentStart",
  subagent_stop: "SubagentStop",
  session_start: "SessionStart",
  session_end: "SessionEnd",
  pre_compact: "PreCompact",
  assistant_response: "MessageDisplay",
};
const FAILED_POST = "PostToolUseFailure";

/** Read an event as a step of a session; null where it belongs to none. */
export function stepOf(event: SeenEvent): Step | null {
  const data = fieldsOf(event.data);
  if (!data) return null;
  const told = Number.isNaN(event.publishedAt) ? event.arrivedAt : event.publishedAt;
  return fieldsOf(data.data) && data.hook_event_name === undefined
    ? boxed(data, fieldsOf(data.data) ?? {}, told)
    : plain(event.type, data, told);
}

function plain(type: string, data: Fields, at: number): Step | null {
  const session = textOf(data, "session_id");
  const name = textOf(data, "hook_event_name") ?? /^claude\.(\w+)$/.exec(type)?.[1];
  if (!session || !name) return null;
  return {
    name,
    session,
    agent: textOf(data, "agent_id") ?? "",
    at,
    program: "claude-code",
    fields: data,
    cwd: textOf(data, "cwd"),
  };
}

function boxed(data: Fields, inner: Fields, at: number): Step | null {
  const session = textOf(data, "session_id") ?? textOf(inner, "session_id");
  const subtype = textOf(data, "subtype") ?? "";
  if (!session || !subtype) return null;
  const hook = SUBTYPES[subtype] ?? subtype;
  const failed = hook === "PostToolUse" && failedOf(inner);
  return {
    name: failed ? FAILED_POST : hook,
    session,
    agent: textOf(inner, "agent_id") ?? "",
    at,
    program: "claude-mpm",
    fields: {
      ...inner,
      prompt: inner.prompt_text ?? inner.prompt,
      tool_input: inner.tool_parameters ?? inner.tool_input,
      tool_use_id: textOf(inner, "tool_use_id") ?? textOf(data, "correlation_id"),
    },
    cwd: textOf(data, "cwd") ?? textOf(inner, "working_directory"),
  };
}

function failedOf({ success, is_error, exit_code, error_type }: Fields): boolean {
  const exit = typeof exit_code === "number" && exit_code !== 0;
  return success === false || is_error === true || exit || typeof error_type === "string";
}

const ABOUT = ["command", "file_path", "notebook_path", "pattern", "url", "query", "description"];

/** What a tool was called for, in a few words: its command, its file, its pattern. */
export function aboutTool(fields: Fields): string {
  const input = fieldsOf(fields.tool_input);
  for (const name of ABOUT) {
    const value = textOf(input, name);
    if (value) return clipped(value, 200);
  }
  return "";
}

/** A text of at most `limit` characters. */
export function clipped(text: string, limit: number): string {
  return text.length > limit ? `${text.slice(0, limit - 1)}…` : text;
}
