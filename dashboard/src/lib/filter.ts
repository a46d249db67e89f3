/** The filter: every word must stand somewhere in the event, and each named part must be its. Pure. */

import type { Filter } from "./contract.js";
import type { EventRow } from "./row.js";

export type Matcher = (row: EventRow) => boolean;

function matcherOf(word: string): Matcher {
  const pattern = new RegExp(word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "iu");
  return ({ event, lane, text }) =>
    pattern.test(event.type) ||
    pattern.test(event.source) ||
    pattern.test(event.subject ?? "") ||
    pattern.test(event.id) ||
    pattern.test(lane) ||
    pattern.test(text);
}

function wordsOf(filter: Filter): Matcher[] {
  const words = filter.text.split(/\s+/u).filter((word) => word !== "");
  return words.map(matcherOf);
}

function partsOf({ type, source, session, agent, priority }: Filter): Matcher[] {
  const parts: Matcher[] = [];
  if (priority) parts.push(({ lane }) => lane === priority);
  if (type) parts.push(({ event }) => event.type === type);
  if (source) parts.push(({ event }) => event.source === source);
  if (session) parts.push(({ event }) => event.session === session);
  if (agent) parts.push(({ event }) => event.agent === agent);
  return parts;
}

/** Compile a filter; null where it lets everything through. Remembers what it said of a row. */
export function compile(filter: Filter): Matcher | null {
  // What is cheap to ask is asked first.
  const matchers = [...partsOf(filter), ...wordsOf(filter)];
  if (matchers.length === 0) return null;
  const known = new WeakMap<EventRow, boolean>();
  return (row) => {
    const before = known.get(row);
    if (before !== undefined) return before;
    const matches = matchers.every((each) => each(row));
    known.set(row, matches);
    return matches;
  };
}
