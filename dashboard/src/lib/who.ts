/** Who an event is of, in words that a person knows: a session's folder and its agent, else the source. Pure. */

import type { SeenEvent } from "./contract.js";
import { fieldsOf, textOf } from "./seen.js";
import { nameOf } from "./sessions_words.js";

/** The words for a row. */
export function whoOf(event: SeenEvent): string {
  const session = sessionOf(event);
  if (session === null) return event.source;
  const agent = agentOf(event);
  return agent === null ? session : `${session} › ${agent}`;
}

/** Names for the ids of sessions and agents, where their events have any; a later event's stand. */
export function namesOf(events: readonly SeenEvent[]): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const event of events) {
    const { session, agent } = event;
    const name = sessionOf(event);
    if (session !== null && name !== null) names.set(session, name);
    const type = agentOf(event);
    if (agent !== null && type !== null) names.set(agent, `${type} ${agent.slice(0, 6)}`);
  }
  return names;
}

function sessionOf({ session, data }: SeenEvent): string | null {
  return session === null ? null : nameOf(session, textOf(fieldsOf(data), "cwd"));
}

function agentOf({ agent, data }: SeenEvent): string | null {
  return agent === null ? null : textOf(fieldsOf(data), "agent_type");
}
