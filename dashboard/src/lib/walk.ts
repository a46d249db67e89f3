/** The whole log of a stream, oldest first, page by page; and what matches of it as one file. */

import type { SeenEvent } from "./contract.js";
import type { Matcher } from "./filter.js";
import { holdsRounded } from "./format.js";
import type { LogReader, Offsets } from "./log.js";

export interface Step {
  /** Events that were read, those that don't match included. */
  readonly read: number;
  readonly matching: readonly SeenEvent[];
  /** Retention was faster than the reader: events are missing before these. */
  readonly overtaken: boolean;
}

/** Read from the oldest event up to `until`; raises `Unread`. */
export async function* walk(
  log: LogReader,
  until: Offsets,
  matches: Matcher | null,
): AsyncGenerator<Step> {
  let at: Offsets = { critical: 0, normal: 0 };
  for (let ended = false; !ended; ) {
    const found = await log.newer(at, until);
    const { events } = found;
    const overtaken = log.passed(at);
    yield { read: events.length, matching: matches ? events.filter(matches) : events, overtaken };
    const stands = found.at.critical === at.critical && found.at.normal === at.normal;
    ended = found.ended || stands;
    at = found.at;
  }
}

/** How far it is. */
export interface Taken {
  readonly read: number;
  readonly taken: number;
  /** Events are missing that retention took meanwhile. */
  readonly overtaken: boolean;
  /** Events with numbers that aren't exactly the log's. */
  readonly rounded: number;
}

/** Characters that are gathered before the browser gets them: it keeps what it has been given on its disk. */
const PIECE = 1_000_000;

/** Put what matches into a file, after `head`; tells of each step. */
export async function gather(
  steps: AsyncIterable<Step>,
  head: string,
  text: (events: readonly SeenEvent[]) => string,
  told: (taken: Taken) => void,
): Promise<Blob> {
  const pieces: Blob[] = [];
  let piece = head;
  let taken: Taken = { read: 0, taken: 0, overtaken: false, rounded: 0 };
  for await (const { read, matching, overtaken } of steps) {
    piece += text(matching);
    taken = {
      read: taken.read + read,
      taken: taken.taken + matching.length,
      overtaken: taken.overtaken || overtaken,
      rounded: taken.rounded + matching.filter(({ data }) => holdsRounded(data)).length,
    };
    told(taken);
    if (piece.length < PIECE) continue;
    pieces.push(new Blob([piece]));
    piece = "";
  }
  return new Blob([...pieces, piece]);
}
