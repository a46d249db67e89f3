/** Sessions in words and tones. Pure. */

import { count, when } from "./format.js";
import type { Call, Session } from "./sessions_model.js";
import type { SessionState } from "./sessions_state.js";

export type Tone = "good" | "info" | "warn" | "bad" | "muted";

export const TONES: { readonly [state in SessionState]: Tone } = {
  idle: "muted",
  working: "info",
  waiting: "warn",
  done: "good",
  failed: "bad",
  stuck: "bad",
  ended: "muted",
};

/** The state of a session in a few words. */
export function stateWords(session: Session, state: SessionState, now: number): string {
  switch (state) {
    case "idle":
      return "no prompt yet";
    case "waiting":
      return "waiting for you";
    case "failed":
      return "stopped by an error";
    case "stuck":
      return `stuck since ${when(session.heard, now)}`;
    default:
      return state;
  }
}

/** The last part of a path: what a person calls the folder. */
export function folder(cwd: string | null): string {
  if (!cwd) return "";
  const parts = cwd.split(/[\\/]/).filter(Boolean);
  return parts.at(-1) ?? cwd;
}

/** Who asks for what first, and how many more asks there are, in a line. */
export function askWords({ cwd, id, asks: [first, ...others] }: Session): string {
  const more = others.length > 0 ? `, and ${count(others.length)} more` : "";
  return `${nameOf(id, cwd) ?? id}: ${first?.what ?? ""}${more}`;
}

/** What a person calls a session: the folder that it works in, and enough of its id. */
export function nameOf(id: string, cwd: string | null): string | null {
  const where = folder(cwd);
  return where ? `${where} ${id.slice(0, 6)}` : null;
}

/** Milliseconds as "250 ms", "4.2 s", "3 min 5 s", "2 h 10 min". */
export function span(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 59_950) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
}

/** A call in one line, for whoever points at it. */
export function callWords(call: Call, now: number): string {
  const took = span((call.end ?? now) - call.start);
  const how = {
    running: "so far",
    ok: "",
    failed: "failed",
    denied: "denied",
    unknown: "end unknown",
  };
  const about = call.about.split("\n", 1)[0] ?? "";
  return [call.tool, about, took, how[call.outcome]].filter(Boolean).join(" · ");
}
