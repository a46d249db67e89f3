/** Who in a session waits for a person: each ask by itself, until it is answered. Pure. */

import { textOf } from "./seen.js";
import type { Agent, Session, Waiting } from "./sessions_model.js";
import { aboutTool, type Step } from "./sessions_step.js";

/** What an agent does by itself. */
export const WORK: ReadonlySet<string> = new Set([
  "UserPromptSubmit",
  "PreToolUse",
  "PostToolUse",
  "PostToolUseFailure",
  "PostToolBatch",
  "PermissionDenied",
  "MessageDisplay",
  "ElicitationResult",
  "SubagentStart",
  "PreCompact",
  "PostCompact",
]);
/** How a call ends: others of the same agent may still be asked for beside it. */
const ENDS_CALL = new Set(["PostToolUse", "PostToolUseFailure", "PermissionDenied"]);
const ENDS_TURN = new Set(["Stop", "StopFailure", "SessionEnd"]);
const ASKING = new Set(["permission_prompt", "elicitation_dialog", "agent_needs_input"]);
/** Asks of a session that are kept. */
const MOST = 50;

/** Note that the agent worked. */
export function worked(agent: Agent, { name, at }: Step): void {
  if (!WORK.has(name)) return;
  agent.last = Math.max(agent.last, at);
  if (!ENDS_CALL.has(name)) agent.turned = Math.max(agent.turned, at);
}

/** Note who waits for a person, and who doesn't any more. */
export function wait(session: Session, step: Step): void {
  const asked = askOf(step);
  if (asked) ask(session, asked);
  else {
    session.asks = session.asks.filter(
      (each) => step.at < each.since || !answers(session, step, each),
    );
  }
}

function askOf({ name, fields, at, agent }: Step): Waiting | null {
  const asked = (by: Waiting["by"], what: string) => ({ since: at, agent, what, by });
  if (name === "PermissionRequest") {
    return asked("call", callWords(textOf(fields, "tool_name") ?? "a tool", aboutTool(fields)));
  }
  if (name === "Elicitation") return asked("question", textOf(fields, "message") ?? "a question");
  const kind = name === "Notification" ? textOf(fields, "notification_type") : null;
  if (!kind || !ASKING.has(kind)) return null;
  return asked("notice", textOf(fields, "message") ?? "an answer");
}

function callWords(tool: string, about: string): string {
  return `${tool}${about && `: ${about}`}`;
}

function ask(session: Session, asked: Waiting): void {
  const { asks } = session;
  const known = (each: Waiting) =>
    each.since <= asked.since && (asked.by === "notice" || isSame(each, asked));
  if (isOver(session, asked) || asks.some(known)) return;
  // A notice names no call: what it tells of is this one, asked for before it.
  const others = asks.filter(
    (each) => !isSame(each, asked) && (each.by !== "notice" || each.since < asked.since),
  );
  const all = [...others, asked].sort((a, b) => a.since - b.since);
  session.dropped += Math.max(0, all.length - MOST);
  session.asks = all.slice(0, MOST);
}

function isSame(one: Waiting, other: Waiting): boolean {
  return one.agent === other.agent && one.what === other.what;
}

/** Whether what was asked for has been answered by what came here before it. */
function isOver(session: Session, { since, agent: id, what, by }: Waiting): boolean {
  const agent = session.agents.get(id);
  if (agent && (agent.turned > since || (agent.end ?? since) > since)) return true;
  if (session.phase !== "working" && session.phaseAt > since) return true;
  if (by !== "call") return agent !== undefined && agent.last > since;
  return session.calls.some(
    ({ agent, tool, about, end }) =>
      agent === id && end !== null && end > since && callWords(tool, about) === what,
  );
}

/** Whether a step says that an ask from before it was answered, or is none any more. */
function answers(session: Session, step: Step, asked: Waiting): boolean {
  if (ENDS_TURN.has(step.name)) return true;
  if (step.agent !== asked.agent) return false;
  if (step.name === "SubagentStop") return true;
  // Of the same millisecond it is the call that is asked for, read behind the ask.
  if (step.name === "PreToolUse" && step.at === asked.since) return false;
  if (!ENDS_CALL.has(step.name) || asked.by !== "call") return WORK.has(step.name);
  const id = textOf(step.fields, "tool_use_id");
  const call = id === null ? undefined : session.calls.find((each) => each.id === id);
  const tool = call?.tool ?? textOf(step.fields, "tool_name") ?? "a tool";
  return callWords(tool, call?.about ?? aboutTool(step.fields)) === asked.what;
}
