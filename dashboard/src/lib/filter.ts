/** The filter: every word must stand somewhere in the event. Pure. */

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

/** Compile a filter's text; null where it lets everything through. Remembers what it said of a row. */
export function compile(filter: string): Matcher | null {
  const words = filter.split(/\s+/u).filter((word) => word !== "");
  if (words.length === 0) return null;
  const matchers = words.map(matcherOf);
  const known = new WeakMap<EventRow, boolean>();
  return (row) => {
    const before = known.get(row);
    if (before !== undefined) return before;
    const matches = matchers.every((each) => each(row));
    known.set(row, matches);
    return matches;
  };
}
