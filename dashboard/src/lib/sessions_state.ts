/** How a session is, how long it took, and its agents as a tree. Pure. */

import type { Agent, Phase, Session } from "./sessions_model.js";

export type SessionState = Phase | "waiting" | "stuck";

/** Minutes without an event after which a session that works is called stuck. */
export const STUCK_AFTER = 5;

/** How a session is, at `now` (milliseconds of Unix time). */
export function stateOf(session: Session, now: number, stuckAfter = STUCK_AFTER): SessionState {
  if (session.phase === "ended") return "ended";
  if (session.asks.length > 0) return "waiting";
  const silent = now - session.heard >= stuckAfter * 60_000;
  return session.phase === "working" && silent ? "stuck" : session.phase;
}

/** Seconds from its first event to its last, or to `now` while it works or waits. */
export function secondsOf(session: Session, now: number, state: SessionState): number {
  const open = state === "working" || state === "waiting";
  return Math.max(0, (open ? Math.max(now, session.last) : session.last) - session.start) / 1_000;
}

/**
 * The sessions as a list: who waits for a person, who works, then the rest; of each the latest first.
 *
 * What a session does at work doesn't move it: a line that somebody is about to click on stays where it is.
 */
export function ordered(sessions: readonly Session[], now: number): Session[] {
  const placed = sessions.map((session) => ({ session, place: placeOf(session, now) }));
  placed.sort(({ place: [rank, at] }, { place: [other, then] }) => rank - other || then - at);
  return placed.map(({ session }) => session);
}

function placeOf(session: Session, now: number): readonly [rank: number, at: number] {
  const state = stateOf(session, now);
  if (state === "waiting") return [0, session.asks[0]?.since ?? 0];
  return state === "working" ? [1, session.start] : [2, session.last];
}

/**
 * Those that wait for a person since `from` or later, the latest first; in milliseconds of Unix time. What was
 * asked before `from` may have been answered, and hides nothing that was asked since.
 */
export function asking(sessions: readonly Session[], from: number): Session[] {
  const since = ({ asks }: Session) =>
    asks.find((ask) => ask.since >= from)?.since ?? Number.NEGATIVE_INFINITY;
  const waiting = sessions.filter((each) => each.phase !== "ended" && since(each) >= from);
  return waiting.sort((a, b) => since(b) - since(a));
}

/** Until when an agent was at work: `now` while a call of its own is open. */
export function endOf(session: Session, agent: Agent, now: number): number {
  const running = session.calls.some((call) => call.agent === agent.id && call.end === null);
  if (running) return now;
  return agent.end ?? (agent.parent === null ? session.last : Math.max(agent.last, agent.start));
}

export interface TreeNode {
  readonly agent: Agent;
  readonly depth: number;
}

/** The agents as a tree, each below who called it, in the order of their beginnings. */
export function treeOf(session: Session): TreeNode[] {
  const agents = [...session.agents.values()].sort((a, b) => a.start - b.start);
  const rows: TreeNode[] = [];
  const done = new Set<Agent>();
  const walk = (agent: Agent, depth: number) => {
    if (done.has(agent)) return;
    done.add(agent);
    rows.push({ agent, depth });
    for (const child of agents)
      if (child.parent === agent.id && child !== agent) walk(child, depth + 1);
  };
  for (const agent of agents) if (agent.parent === null) walk(agent, 0);
  // Whose caller isn't known here.
  for (const agent of agents) walk(agent, rows.length > 0 ? 1 : 0);
  return rows;
}
