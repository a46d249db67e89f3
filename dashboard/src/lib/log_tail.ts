/** The last events of a stream's lane, read from the log. */

import type { Lane } from "@steadcast/client";
import type { SeenEvent, ServerAccess } from "./contract.js";
import { fieldsOf, seen } from "./seen.js";

/** Events that one answer has at most. */
const PAGE = 256;

export interface History {
  readonly events: readonly SeenEvent[];
  /** The position behind it: what comes live above it is new. Null where nothing could be read. */
  readonly at: { readonly epoch: string; readonly upto: number } | null;
  /** Whether the lane has older events that weren't read. */
  readonly more: boolean;
  /** What kept it from being read, in words. */
  readonly trouble: string | null;
}

/** What is told where, say, a proxy has answered in the server's place. */
export const NO_PAGE = "what was answered is no page of the log.";

/** Read the last events of a lane, page by page; ends early where the server doesn't answer. */
export async function readLast(
  server: ServerAccess,
  stream: string,
  lane: Lane,
  last: number,
  signal?: AbortSignal,
): Promise<History> {
  const events: SeenEvent[] = [];
  let at: History["at"] = null;
  let first: number | null = null;
  const path = `v1/streams/${encodeURIComponent(stream)}/events?lane=${lane}&limit=${PAGE}`;
  let query = `from=last:${last}`;
  const asked = signal ? { signal } : {};
  // A stream that grows faster than it is read must not be read for ever.
  for (let pages = Math.ceil(last / PAGE) + 2; pages > 0; pages -= 1) {
    const answer = await server.ask(`${path}&${query}`, asked);
    if (!answer.ok) return { events, at, more: true, trouble: answer.detail };
    const page = pageOf(answer.body);
    if (!page) return { events, at, more: true, trouble: NO_PAGE };
    const place = { stream, lane, epoch: page.epoch };
    const now = Date.now();
    for (const event of page.events) events.push(seen(event, place, now));
    first ??= page.after;
    at = { epoch: page.epoch, upto: page.upto };
    if (page.upto >= page.head || page.events.length === 0) break;
    query = `after=${page.epoch}:${page.upto}`;
  }
  return { events, at, more: events.length >= last && (first ?? 0) > 0, trouble: null };
}

interface LogPage {
  readonly epoch: string;
  readonly after: number;
  readonly upto: number;
  readonly head: number;
  readonly events: Parameters<typeof seen>[0][];
}

function pageOf(body: unknown): LogPage | null {
  const fields = fieldsOf(body);
  const whole = fields && typeof fields.epoch === "string" && Array.isArray(fields.events);
  return whole && typeof fields.upto === "number" ? (fields as unknown as LogPage) : null;
}
