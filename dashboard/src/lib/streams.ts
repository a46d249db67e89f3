/** What `GET v1/streams` answers, and which stream the page shows. Pure. */

export interface Stream {
  readonly name: string;
  /** Written by the server alone. */
  readonly system: boolean;
  /** Events that are retained, both lanes together. */
  readonly events: number;
}

/** The server tells of new streams in a stream, to whoever may read that one (docs/adr/0016). */
export const ANNOUNCED = "steadcast.streams";

/** What the names of streams begin with that the server alone writes. */
export const SYSTEM = "steadcast.";

/** Where coding agents' hooks go. */
export const HOOKS = "claude";

type Fields = { readonly [name: string]: unknown };

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null;
}

function eventsIn(lanes: unknown): number {
  if (!isFields(lanes)) return 0;
  const counts = Object.values(lanes).map((lane) => (isFields(lane) ? lane.events : 0));
  return counts.reduce<number>((sum, events) => sum + (typeof events === "number" ? events : 0), 0);
}

/** Read the answer's body; null where it isn't of the form. */
export function parseStreams(body: unknown): Stream[] | null {
  const streams = isFields(body) ? body.streams : null;
  if (!Array.isArray(streams)) return null;
  return streams.flatMap((each: unknown) => {
    if (!isFields(each) || typeof each.stream !== "string") return [];
    return [{ name: each.stream, system: each.system === true, events: eventsIn(each.lanes) }];
  });
}

/**
 * Choose a stream where nobody did: the one that is shown while it has events, else the first that has
 * some, else the one that is shown, else the first.
 */
export function chooseStream(streams: readonly Stream[], shown: string | null): string | null {
  const own = streams.filter(({ system }) => !system);
  const withEvents = own.filter(({ events }) => events > 0).map(({ name }) => name);
  if (shown !== null && withEvents.includes(shown)) return shown;
  return withEvents[0] ?? shown ?? own[0]?.name ?? null;
}

/** The words of a problem (RFC 9457), or of what stands in its place. */
export function problemOf(body: unknown, status: number): string {
  const { detail, title } = isFields(body) ? body : {};
  if (typeof detail === "string" && detail) return detail;
  return typeof title === "string" && title ? title : `the server answered ${status}`;
}
