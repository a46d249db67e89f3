/** What the page's address says, and the address of what it shall say. Pure. */

import type { Lane } from "@steadcast/client";
import type { Change, Filter, ViewName } from "./contract.js";

export const VIEWS: readonly ViewName[] = ["feed", "sessions", "pulse", "delivery", "publish"];
export const NO_FILTER: Filter = {
  text: "",
  type: "",
  source: "",
  session: "",
  agent: "",
  priority: "",
};

export interface Query {
  readonly view: ViewName;
  /** The stream that was asked for; null leaves the choice to the page. */
  readonly stream: string | null;
  readonly filter: Filter;
  /** Parameters of a view's own. */
  readonly params: { readonly [name: string]: string };
}

/** What a stream can be called; a link with anything else is one without a stream. */
const STREAM = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;
/** The filter's words are `filter` in the address, its other parts have their own names. */
const PARTS = ["type", "source", "session", "agent"] as const;
const COMMON: ReadonlySet<string> = new Set(["view", "stream", "filter", "priority", ...PARTS]);

function isView(name: string | null): name is ViewName {
  return VIEWS.includes(name as ViewName);
}

function laneOf(name: string | null): Lane | "" {
  return name === "critical" || name === "normal" ? name : "";
}

export function readQuery(search: string): Query {
  const query = new URLSearchParams(search);
  const view = query.get("view");
  const stream = query.get("stream") ?? "";
  const filter = {
    text: query.get("filter") ?? "",
    type: query.get("type") ?? "",
    source: query.get("source") ?? "",
    session: query.get("session") ?? "",
    agent: query.get("agent") ?? "",
    priority: laneOf(query.get("priority")),
  };
  return {
    view: isView(view) ? view : "feed",
    stream: STREAM.test(stream) ? stream : null,
    filter,
    params: Object.fromEntries([...query].filter(([name]) => !COMMON.has(name))),
  };
}

/** Write a query as an address's search; begins with "?" unless it is empty. */
export function writeQuery({ view, stream, filter, params }: Query): string {
  const query = new URLSearchParams();
  const parts = PARTS.map((name) => [name, filter[name]] as const);
  const all: readonly (readonly [string, string])[] = [
    ["view", view === "feed" ? "" : view],
    ["stream", stream ?? ""],
    ["filter", filter.text],
    ...parts,
    ["priority", filter.priority],
    ...Object.entries(params),
  ];
  for (const [name, value] of all) if (value) query.set(name, value);
  const text = query.toString();
  return text && `?${text}`;
}

/** Give the query that a change leads to. */
export function changed(query: Query, change: Change): Query {
  const view = change.view ?? query.view;
  const params = { ...(view === query.view ? query.params : {}) };
  for (const [name, value] of Object.entries(change.params ?? {})) {
    if (value === null) delete params[name];
    else params[name] = value;
  }
  return {
    view,
    stream: change.stream === undefined ? query.stream : change.stream,
    filter: { ...query.filter, ...change.filter },
    params,
  };
}

/** How many parts of a filter are set. */
export function partsSet(filter: Filter): number {
  return Object.values(filter).filter((value) => value.trim() !== "").length;
}
