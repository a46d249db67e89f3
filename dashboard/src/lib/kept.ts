/** When the log took an event. It isn't on the wire: the log is asked for the one event that somebody looks at. */

import type { SeenEvent, ServerAccess } from "./contract.js";
import { fieldsOf, textOf } from "./seen.js";

/** Give milliseconds of Unix time; null where the log doesn't tell, or has the event no more. */
export async function whenKept(
  server: Pick<ServerAccess, "ask">,
  event: SeenEvent,
  signal: AbortSignal,
): Promise<number | null> {
  if (event.keptAt !== undefined) return event.keptAt;
  const { stream, lane, epoch, offset } = event;
  const query = `lane=${lane}&after=${epoch}:${offset - 1}&limit=1`;
  const answer = await server.ask(`v1/streams/${stream}/events?${query}`, { signal });
  const events = answer.ok ? fieldsOf(answer.body)?.events : null;
  const found = Array.isArray(events) ? fieldsOf(events[0]) : null;
  const at = found?.offset === offset ? Date.parse(textOf(found, "kept") ?? "") : Number.NaN;
  return Number.isNaN(at) ? null : at;
}
