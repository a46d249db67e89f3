/** What a filter can be set to: the values that the events of this page have. Pure. */

import type { Filter, SeenEvent } from "./contract.js";

export type Facet = "type" | "source" | "session" | "agent";
export type Facets = { readonly [facet in Facet]: readonly string[] };
export const FACETS: readonly Facet[] = ["type", "source", "session", "agent"];

/** Values of one facet that are offered. */
const MOST = 200;

/** Give the values of events, sorted; what the filter is set to is always among them. */
export function facetsOf(events: readonly SeenEvent[], filter: Filter): Facets {
  const found = (facet: Facet) => {
    const values = new Set<string>(filter[facet] ? [filter[facet]] : []);
    for (const event of events) {
      const value = event[facet];
      if (value !== null && values.size < MOST) values.add(value);
    }
    return [...values].sort();
  };
  return {
    type: found("type"),
    source: found("source"),
    session: found("session"),
    agent: found("agent"),
  };
}
