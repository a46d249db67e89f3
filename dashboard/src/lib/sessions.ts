/**
 * Coding sessions out of their hooks' events: who works, who waits, what was called. Pure, and bounded.
 *
 * Events may come out of order (critical ones overtake, and history is read lane by lane), so what says how a
 * session is counts by its time: a later one stands, an older one that comes afterwards changes nothing.
 */

import type { SeenEvent } from "./contract.js";
import { fieldsOf, textOf } from "./seen.js";
import type { Agent, Call, Mark, Phase, Session } from "./sessions_model.js";
import { aboutTool, clipped, type Step, stepOf } from "./sessions_step.js";
import { WORK, wait, worked } from "./sessions_waits.js";

export interface SessionLimits {
  readonly sessions?: number;
  /** Of each session. */
  readonly calls?: number;
  readonly prompts?: number;
  readonly troubles?: number;
  readonly marks?: number;
  readonly agents?: number;
  readonly tools?: number;
}

const OTHER_TOOLS = "other";
const TITLE = 160;
const DETAIL = 2_000;

export class Sessions {
  /** Sessions that had to go, and events that belong to no session. */
  evicted = 0;
  foreign = 0;
  private readonly byId = new Map<string, Session>();
  private readonly limits: Required<SessionLimits>;
  private serial = 0;

  constructor(limits: SessionLimits = {}) {
    this.limits = {
      sessions: 200,
      calls: 2_000,
      prompts: 200,
      troubles: 200,
      marks: 600,
      agents: 100,
      tools: 60,
      ...limits,
    };
  }

  /** Take events in; `live`: they come here as they are published. */
  apply(events: readonly SeenEvent[], live = false): void {
    for (const event of events) {
      const step = stepOf(event);
      if (step) this.take(step, event.keptAt ?? (live ? event.arrivedAt : step.at));
      else this.foreign += 1;
    }
  }

  get(id: string): Session | undefined {
    return this.byId.get(id);
  }

  /** The sessions, the latest first. */
  list(): Session[] {
    return [...this.byId.values()].sort((a, b) => b.last - a.last);
  }

  private take(step: Step, heard: number): void {
    const session = this.byId.get(step.session) ?? this.begin(step);
    session.heard = Math.max(session.heard, heard);
    session.events += 1;
    session.start = Math.min(session.start, step.at);
    if (step.at >= session.last) {
      session.last = step.at;
      session.cwd = step.cwd ?? session.cwd;
    }
    this.agent(session, step);
    this.tell(session, step);
    move(session, step);
    wait(session, step);
    const agent = session.agents.get(step.agent);
    if (agent) worked(agent, step);
  }

  private begin(step: Step): Session {
    const session: Session = {
      id: step.session,
      program: step.program,
      title: "",
      cwd: step.cwd,
      model: null,
      start: step.at,
      last: step.at,
      heard: Number.NEGATIVE_INFINITY,
      phase: "idle",
      phaseAt: Number.NEGATIVE_INFINITY,
      asks: [],
      events: 0,
      calls: [],
      prompts: [],
      troubles: [],
      marks: [],
      agents: new Map(),
      tools: new Map(),
      called: 0,
      prompted: 0,
      failures: 0,
      dropped: 0,
    };
    if (this.byId.size >= this.limits.sessions) this.evict();
    this.byId.set(session.id, session);
    return session;
  }

  private evict(): void {
    const oldest = this.list().at(-1);
    if (oldest) this.byId.delete(oldest.id);
    this.evicted += 1;
  }

  private agent(session: Session, step: Step): void {
    const { agents } = session;
    const known = agents.get(step.agent);
    if (known) {
      known.start = Math.min(known.start, step.at);
      return;
    }
    if (agents.size >= this.limits.agents && !makeRoom(session, step)) return;
    const type = textOf(step.fields, "agent_type") ?? (step.agent ? "agent" : "main");
    const caller = step.agent ? callerOf(session, step, type) : undefined;
    agents.set(step.agent, {
      id: step.agent,
      type,
      parent: step.agent ? (textOf(step.fields, "parent_agent_id") ?? caller?.agent ?? "") : null,
      task: caller?.about ?? "",
      call: caller?.serial ?? null,
      start: step.at,
      end: null,
      last: step.at,
      turned: Number.NEGATIVE_INFINITY,
      settled: Number.NEGATIVE_INFINITY,
      calls: 0,
      failures: 0,
    });
  }

  /** Note what the step tells of: prompts, calls, troubles. */
  private tell(session: Session, step: Step): void {
    const { fields } = step;
    switch (step.name) {
      case "SessionStart":
        session.model = textOf(fields, "model") ?? session.model;
        break;
      case "PostModelSwitch":
        session.model = textOf(fields, "new_model") ?? session.model;
        break;
      case "UserPromptSubmit":
        this.prompt(session, step);
        break;
      case "PreToolUse":
        this.open(session, step);
        break;
      case "PostToolUse":
      case "PostToolUseFailure":
      case "PermissionDenied":
        this.close(session, step);
        break;
      case "PermissionRequest":
        this.mark(
          session,
          step,
          "asked",
          `permission for ${textOf(fields, "tool_name") ?? "a tool"}`,
        );
        break;
      case "Elicitation":
        this.mark(session, step, "asked", textOf(fields, "message") ?? "a question");
        break;
      case "ElicitationResult":
        this.mark(session, step, "answered", textOf(fields, "action") ?? "answered");
        break;
      case "PreCompact":
        this.mark(session, step, "compact", "the conversation is compacted");
        break;
      case "Stop":
        this.mark(
          session,
          step,
          "stop",
          clipped(textOf(fields, "last_assistant_message") ?? "done", DETAIL),
        );
        settle(session, step, "");
        break;
      case "StopFailure":
        this.trouble(session, step, "stopped by an error");
        settle(session, step, "");
        break;
      case "SubagentStop":
        settle(session, step, step.agent);
        break;
      case "SessionEnd":
        for (const agent of session.agents.keys()) settle(session, step, agent);
        break;
    }
  }

  private prompt(session: Session, step: Step): void {
    const text = clipped(textOf(step.fields, "prompt") ?? "", DETAIL);
    session.prompted += 1;
    insert(session.prompts, { at: step.at, text }, (each) => each.at);
    this.bound(session, session.prompts, this.limits.prompts);
    session.title = clipped(session.prompts[0]?.text.split("\n", 1)[0] ?? "", TITLE);
    this.mark(session, step, "prompt", text);
  }

  private open(session: Session, step: Step): void {
    const known = calledBefore(session, step);
    if (known) {
      beginEarlier(session, known, step);
      return;
    }
    const settled = session.agents.get(step.agent)?.settled ?? Number.NEGATIVE_INFINITY;
    if (step.at <= settled) this.add(session, step, step.at, settled, "unknown");
    else this.add(session, step, step.at, null, "running");
  }

  private add(
    session: Session,
    step: Step,
    start: number,
    end: number | null,
    outcome: Call["outcome"],
  ): Call {
    const tool = textOf(step.fields, "tool_name") ?? "a tool";
    const call: Call = {
      serial: ++this.serial,
      id: textOf(step.fields, "tool_use_id") ?? "",
      tool,
      about: aboutTool(step.fields),
      agent: step.agent,
      start,
      end,
      outcome,
      detail: "",
      begins: begunBy(step),
    };
    insert(session.calls, call, (each) => each.start);
    this.bound(session, session.calls, this.limits.calls);
    session.called += 1;
    const known = session.tools.has(tool) || session.tools.size < this.limits.tools;
    const name = known ? tool : OTHER_TOOLS;
    session.tools.set(name, (session.tools.get(name) ?? 0) + 1);
    const agent = session.agents.get(step.agent);
    if (agent) agent.calls += 1;
    return call;
  }

  private close(session: Session, step: Step): void {
    const outcome = OUTCOMES[step.name] ?? "ok";
    const took = step.fields.duration_ms;
    const start = step.at - (typeof took === "number" && took > 0 ? took : 0);
    const known = calledBefore(session, step);
    if (known && known.end !== null && known.outcome !== "unknown") return;
    // A call whose beginning was before this page's history still has its end.
    const call =
      known ?? openCall(session, step) ?? this.add(session, step, start, step.at, outcome);
    call.end = step.at;
    call.outcome = outcome;
    if (outcome === "ok") return;
    call.detail = clipped(reasonOf(step), DETAIL);
    const agent = session.agents.get(step.agent);
    if (agent) agent.failures += 1;
    this.trouble(session, step, `${call.tool} ${outcome === "denied" ? "was denied" : "failed"}`);
  }

  private trouble(session: Session, step: Step, what: string): void {
    session.failures += 1;
    const detail = clipped(reasonOf(step), DETAIL);
    insert(session.troubles, { at: step.at, agent: step.agent, what, detail }, (each) => each.at);
    this.bound(session, session.troubles, this.limits.troubles);
    this.mark(session, step, "trouble", detail ? `${what}: ${detail}` : what);
  }

  private mark(session: Session, step: Step, kind: Mark["kind"], text: string): void {
    insert(session.marks, { at: step.at, agent: step.agent, kind, text }, (each) => each.at);
    this.bound(session, session.marks, this.limits.marks);
  }

  private bound(session: Session, list: unknown[], limit: number): void {
    if (list.length <= limit) return;
    session.dropped += list.length - limit;
    list.splice(0, list.length - limit);
  }
}

const OUTCOMES: { readonly [name: string]: Call["outcome"] } = {
  PostToolUseFailure: "failed",
  PermissionDenied: "denied",
};

function reasonOf({ fields }: Step): string {
  const words = ["error", "error_details", "reason", "error_type"].map((name) =>
    textOf(fields, name),
  );
  return words.filter((word) => word !== null).join(": ");
}

/** The call that a step tells of once more, or whose end came here first. */
function calledBefore(session: Session, step: Step): Call | undefined {
  // Elsewhere an id may be that of several calls.
  const id = step.program === "claude-code" ? textOf(step.fields, "tool_use_id") : null;
  return id === null ? undefined : session.calls.find((call) => call.id === id);
}

function beginEarlier(session: Session, call: Call, step: Step): void {
  call.about ||= aboutTool(step.fields);
  call.begins ||= begunBy(step);
  if (step.at >= call.start) return;
  call.start = step.at;
  session.calls.splice(session.calls.indexOf(call), 1);
  insert(session.calls, call, (each) => each.start);
}

function begunBy({ fields }: Step): string {
  return textOf(fieldsOf(fields.tool_input), "subagent_type") ?? "";
}

/** The call that a step ends: by its id, else the oldest that is open of the same tool and agent. */
function openCall(session: Session, step: Step): Call | undefined {
  const id = textOf(step.fields, "tool_use_id");
  const tool = textOf(step.fields, "tool_name") ?? "a tool";
  const own = (call: Call) => call.end === null && call.agent === step.agent;
  if (id) {
    const found = session.calls.find((call) => call.end === null && call.id === id);
    if (found) return found;
  }
  return session.calls.find((call) => own(call) && call.tool === tool && (!id || !call.id));
}

/** Let go of the agent that did nothing for longest, those at their end first; false where the step is older still. */
function makeRoom(session: Session, step: Step): boolean {
  session.dropped += 1;
  let victim: Agent | undefined;
  for (const agent of session.agents.values()) {
    if (agent.id !== "" && (!victim || goesBefore(agent, victim))) victim = agent;
  }
  return victim !== undefined && victim.last <= step.at && session.agents.delete(victim.id);
}

function goesBefore(agent: Agent, other: Agent): boolean {
  if ((agent.end === null) !== (other.end === null)) return agent.end !== null;
  return agent.last < other.last;
}

/** The open call that began an agent: the first for its type that began no other. */
function callerOf(session: Session, step: Step, type: string): Call | undefined {
  const taken = new Set([...session.agents.values()].map(({ call }) => call));
  return session.calls.find(
    ({ serial, begins, end, start }) =>
      begins === type && end === null && start <= step.at && !taken.has(serial),
  );
}

/** An agent stopped: its open calls have ended, nobody said how. */
function settle(session: Session, step: Step, id: string): void {
  const agent = session.agents.get(id);
  if (agent && (id !== "" || step.name === "SessionEnd"))
    agent.end = Math.max(step.at, agent.start);
  if (agent) agent.settled = Math.max(agent.settled, step.at);
  for (const call of session.calls) {
    if (call.agent !== id || call.end !== null || call.start > step.at) continue;
    call.end = step.at;
    call.outcome = "unknown";
  }
}

/** Move on to what the step says of the session as a whole, unless something later was heard already. */
function move(session: Session, step: Step): void {
  const phase = phaseOf(step);
  if (phase === null || step.at < session.phaseAt) return;
  session.phase = phase;
  session.phaseAt = step.at;
}

function phaseOf({ name, agent }: Step): Phase | null {
  if (name === "SessionEnd") return "ended";
  if (name === "Stop") return "done";
  if (name === "StopFailure") return "failed";
  if (name === "SessionStart") return "idle";
  // An agent in the background goes on after the first one is done; its end changes nothing.
  return WORK.has(name) || (name === "SubagentStop" && agent === "") ? "working" : null;
}

/** Keep a list in the order of time; what comes is nearly always the latest. */
function insert<T>(list: T[], item: T, at: (item: T) => number): void {
  let index = list.length;
  while (index > 0 && at(list[index - 1] as T) > at(item)) index -= 1;
  list.splice(index, 0, item);
}
