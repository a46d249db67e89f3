/** What is known of a coding session. Times are milliseconds of Unix time. */

import type { Step } from "./sessions_step.js";

/** A tool's use; `end` is null while it runs. */
export interface Call {
  readonly serial: number;
  readonly id: string;
  readonly tool: string;
  about: string;
  readonly agent: string;
  start: number;
  end: number | null;
  /** `unknown`: the agent stopped, and nobody said how the call ended. */
  outcome: "running" | "ok" | "failed" | "denied" | "unknown";
  /** Why it failed. */
  detail: string;
  /** The type of the agent that it begins, where it begins one. */
  begins: string;
}

export interface Agent {
  /** Empty for the one that the person talks to. */
  readonly id: string;
  readonly type: string;
  /** Who called it; null for the first. */
  parent: string | null;
  /** What it was asked for. */
  readonly task: string;
  /** The call that began it, where that is known. */
  readonly call: number | null;
  start: number;
  end: number | null;
  /** When it last did something, and when something other than a call's end. */
  last: number;
  turned: number;
  /** Up to when nothing that it called can still run: it stopped then. */
  settled: number;
  calls: number;
  failures: number;
}

export interface Prompt {
  readonly at: number;
  readonly text: string;
}

export interface Trouble {
  readonly at: number;
  readonly agent: string;
  readonly what: string;
  readonly detail: string;
}

/** A moment worth a mark on the time line. */
export interface Mark {
  readonly at: number;
  readonly agent: string;
  readonly kind: "prompt" | "asked" | "answered" | "stop" | "trouble" | "compact";
  readonly text: string;
}

export interface Waiting {
  readonly since: number;
  readonly agent: string;
  readonly what: string;
  /** `call`: permission for one; `notice`: word that somebody is asked, whoever it is. */
  readonly by: "call" | "question" | "notice";
}

export type Phase = "idle" | "working" | "done" | "failed" | "ended";

export interface Session {
  readonly id: string;
  readonly program: Step["program"];
  title: string;
  cwd: string | null;
  model: string | null;
  start: number;
  last: number;
  /** When something of it was heard, by no clock of its host's where another is known. */
  heard: number;
  phase: Phase;
  phaseAt: number;
  /** What a person is asked for, the oldest first. */
  asks: readonly Waiting[];
  events: number;
  calls: Call[];
  prompts: Prompt[];
  troubles: Trouble[];
  marks: Mark[];
  /** In the order in which they were first seen. */
  readonly agents: Map<string, Agent>;
  /** Uses of each tool. */
  readonly tools: Map<string, number>;
  called: number;
  prompted: number;
  failures: number;
  /** What didn't fit, all kinds together. */
  dropped: number;
}
