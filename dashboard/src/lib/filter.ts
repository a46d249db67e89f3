/** The filter: every word must stand somewhere in the event, and each named part must be its. Pure. */

import type { Filter, SeenEvent } from "./contract.js";
import type { Row } from "./row.js";

export type Matcher = (event: SeenEvent) => boolean;

function patternOf(...texts: string[]): RegExp {
  const escaped = texts.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  return new RegExp(escaped.join("|"), "iu");
}

function matcherOf(word: string): Matcher {
  const pattern = patternOf(word);
  // A text's quotes and backslashes stand in JSON with a backslash before them.
  const inData = patternOf(word, JSON.stringify(word).slice(1, -1));
  return (event) =>
    pattern.test(event.type) ||
    pattern.test(event.source) ||
    pattern.test(event.subject ?? "") ||
    pattern.test(event.id) ||
    pattern.test(event.lane) ||
    inData.test(JSON.stringify(event.data) ?? "");
}

function wordsOf(filter: Filter): Matcher[] {
  const words = filter.text.split(/\s+/u).filter((word) => word !== "");
  return words.map(matcherOf);
}

function partsOf({ type, source, session, agent, priority }: Filter): Matcher[] {
  const parts: Matcher[] = [];
  if (priority) parts.push((event) => event.lane === priority);
  if (type) parts.push((event) => event.type === type);
  if (source) parts.push((event) => event.source === source);
  if (session) parts.push((event) => event.session === session);
  if (agent) parts.push((event) => event.agent === agent);
  return parts;
}

/** Compile a filter; null where it lets everything through. Remembers what it said of an event. */
export function compile(filter: Filter): Matcher | null {
  // What is cheap to ask is asked first.
  const matchers = [...partsOf(filter), ...wordsOf(filter)];
  if (matchers.length === 0) return null;
  const known = new WeakMap<SeenEvent, boolean>();
  return (event) => {
    const before = known.get(event);
    if (before !== undefined) return before;
    const matches = matchers.every((each) => each(event));
    known.set(event, matches);
    return matches;
  };
}

/** The rows that match, by either of a call's events; losses always do. */
export function matching(rows: readonly Row[], matches: Matcher | null): readonly Row[] {
  if (!matches) return rows;
  return rows.filter(
    (row) => row.kind === "loss" || matches(row.event) || (row.end !== null && matches(row.end)),
  );
}
