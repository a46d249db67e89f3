/** Reading a stream's log back and forth, both lanes merged by time. */

import type { Lane } from "@steadcast/client";
import type { Answer, SeenEvent } from "./contract.js";
import { NO_PAGE } from "./log_tail.js";
import { fieldsOf, seen } from "./seen.js";

/** Per lane an offset. */
export type Offsets = { readonly [lane in Lane]: number };

/** What a step through the log found; `at` is where the next one goes on. */
export interface Found {
  /** Oldest first. */
  readonly events: readonly SeenEvent[];
  readonly at: Offsets;
  /** There is nothing further that way. */
  readonly ended: boolean;
}

/** The server's words for why nothing could be read. */
export class Unread extends Error {}

/** Asks the server; see `ServerAccess.ask`. */
export type Asking = (path: string, options: { readonly signal: AbortSignal }) => Promise<Answer>;

const LANES: readonly Lane[] = ["critical", "normal"];
/** Events of a page; the server gives no more. */
export const PAGE = 256;
/** Pages that one step reads of a lane at most where offsets are far apart. */
const STRIDES = 12;

interface Chunk {
  readonly lane: Lane;
  readonly events: readonly SeenEvent[];
  /** Where the lane stands once all of them are taken. */
  readonly beyond: number;
  readonly ended: boolean;
}

interface PageBody {
  readonly after: number;
  readonly events: readonly SeenEvent[];
  readonly upto: number;
  readonly head: number;
}

export class LogReader {
  /** Per lane the offset up to which events are gone. */
  private readonly trimmed: { [lane in Lane]: number } = { critical: 0, normal: 0 };
  /** Per lane the page that was read last: a step takes as much of it as the other lane's times allow. */
  private readonly last: { [lane in Lane]?: PageBody } = {};

  constructor(
    private readonly ask: Asking,
    readonly stream: string,
    readonly epoch: string,
    private readonly signal: AbortSignal,
  ) {}

  /** Read what comes before `low`, a page or so; raises `Unread`. */
  async older(low: Offsets): Promise<Found> {
    const chunks = await Promise.all(LANES.map((lane) => this.before(lane, low[lane])));
    const open = chunks.filter(({ ended }) => !ended);
    const since = Math.max(...open.map(({ events }) => timeOf(events[0])));
    // The lane that reaches back least is taken whole, whatever its times say: each step moves on.
    const whole = open.find(({ events }) => timeOf(events[0]) === since);
    return found(
      chunks.map((chunk) => (chunk === whole ? chunk : newest(chunk, since, low[chunk.lane]))),
    );
  }

  /** Read what comes after `high` and is not after `until`, a page or so; raises `Unread`. */
  async newer(high: Offsets, until: Offsets): Promise<Found> {
    const chunks = await Promise.all(
      LANES.map((lane) => this.behind(lane, high[lane], until[lane])),
    );
    const open = chunks.filter(({ ended }) => !ended);
    const upto = Math.min(...open.map(({ events }) => timeOf(events.at(-1))));
    const whole = open.find(({ events }) => timeOf(events.at(-1)) === upto);
    return found(
      chunks.map((chunk) => (chunk === whole ? chunk : oldest(chunk, upto, high[chunk.lane]))),
    );
  }

  /** Give per lane the last offset whose event is older than a time; raises `Unread`. */
  async find(time: number, head: Offsets): Promise<Offsets> {
    const [critical = 0, normal = 0] = await Promise.all(
      LANES.map((lane) => this.search(lane, time, head[lane])),
    );
    return { critical, normal };
  }

  /** Whether retention has passed a place, so that what stood behind it is gone. */
  passed(at: Offsets): boolean {
    return LANES.some((lane) => at[lane] > 0 && this.trimmed[lane] > at[lane]);
  }

  private async search(lane: Lane, time: number, head: number): Promise<number> {
    let low = this.trimmed[lane];
    let high = head;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const { events } = await this.page(lane, middle, 1);
      const [event] = events;
      if (event && event.offset <= head && event.publishedAt < time) low = event.offset;
      else high = middle;
      low = Math.max(low, Math.min(this.trimmed[lane], high));
    }
    return low;
  }

  private async before(lane: Lane, low: number): Promise<Chunk> {
    let start = low;
    let stride = PAGE;
    for (let turn = 0; turn < STRIDES && start > this.trimmed[lane]; turn += 1) {
      start = Math.max(this.trimmed[lane], low - stride);
      const events = await this.range(lane, start, low);
      start = Math.max(start, this.trimmed[lane]);
      const taken = events.slice(-PAGE);
      if (taken.length < events.length) start = (taken[0]?.offset ?? low) - 1;
      // Offsets may have holes: look further back until something stands there.
      if (taken.length > 0) {
        return { lane, events: taken, beyond: start, ended: start <= this.trimmed[lane] };
      }
      stride *= 4;
    }
    return { lane, events: [], beyond: start, ended: start <= this.trimmed[lane] };
  }

  private async range(lane: Lane, after: number, upto: number): Promise<SeenEvent[]> {
    const all: SeenEvent[] = [];
    for (let at = after; at < upto; ) {
      const page = await this.page(lane, at, PAGE);
      all.push(...page.events.filter(({ offset }) => offset <= upto));
      if (page.upto <= at) break;
      at = page.upto;
    }
    return all;
  }

  private async behind(lane: Lane, high: number, until: number): Promise<Chunk> {
    if (high >= until) return { lane, events: [], beyond: high, ended: true };
    const page = this.rest(lane, high) ?? (await this.page(lane, high, PAGE));
    const events = page.events.filter(({ offset }) => offset > high && offset <= until);
    const beyond = Math.min(page.upto, until);
    return { lane, events, beyond, ended: beyond >= until || page.upto >= page.head };
  }

  /** The last page, where it goes on behind an offset, and isn't the end of a log that may have grown. */
  private rest(lane: Lane, high: number): PageBody | null {
    const page = this.last[lane];
    const fits = page && page.after <= high && high < page.upto && page.upto < page.head;
    return fits ? page : null;
  }

  private async page(lane: Lane, after: number, limit: number): Promise<PageBody> {
    const from = Math.max(after, this.trimmed[lane]);
    const query = `lane=${lane}&after=${this.epoch}:${from}&limit=${limit}`;
    const answer = await this.ask(`v1/streams/${this.stream}/events?${query}`, {
      signal: this.signal,
    });
    // Nobody waits for it any more.
    if (this.signal.aborted) throw new Unread("stopped");
    if (answer.ok) return this.body(lane, from, answer.body);
    const lost = fieldsOf(answer.problem)?.lost;
    if (answer.code !== "trimmed" || !Array.isArray(lost)) throw new Unread(answer.detail);
    const [, gone] = lost as readonly unknown[];
    // Retention went on; it always leaves more behind than there was.
    if (typeof gone !== "number" || gone <= from) throw new Unread(answer.detail);
    this.trimmed[lane] = gone;
    return this.page(lane, gone, limit);
  }

  private body(lane: Lane, after: number, body: unknown): PageBody {
    const { events, upto, head } = fieldsOf(body) ?? {};
    if (!Array.isArray(events) || typeof upto !== "number" || typeof head !== "number") {
      throw new Unread(NO_PAGE);
    }
    const now = Date.now();
    const place = { stream: this.stream, lane, epoch: this.epoch };
    const page = { after, events: events.map((event) => seen(event, place, now)), upto, head };
    this.last[lane] = page;
    return page;
  }
}

function timeOf(event: SeenEvent | undefined): number {
  const time = event?.publishedAt ?? Number.NaN;
  return Number.isNaN(time) ? Number.NEGATIVE_INFINITY : time;
}

/** What a lane gives of a step: its newest events that aren't older than `since`; one whole page moves on. */
function newest(chunk: Chunk, since: number, low: number): Chunk {
  const { events, lane } = chunk;
  let first = events.length;
  while (first > 0 && timeOf(events[first - 1]) >= since) first -= 1;
  if (first === 0) return chunk;
  const taken = events.slice(first);
  return { lane, events: taken, beyond: (taken[0]?.offset ?? low + 1) - 1, ended: false };
}

function oldest(chunk: Chunk, upto: number, high: number): Chunk {
  const { events, lane } = chunk;
  let end = 0;
  while (end < events.length && timeOf(events[end]) <= upto) end += 1;
  if (end === events.length) return chunk;
  const taken = events.slice(0, end);
  return { lane, events: taken, beyond: taken.at(-1)?.offset ?? high, ended: false };
}

function found(parts: readonly Chunk[]): Found {
  const [first, second] = parts;
  if (!first || !second) throw new RangeError("a stream has two lanes");
  return {
    events: merge(first.events, second.events),
    at: { critical: first.beyond, normal: second.beyond },
    ended: first.ended && second.ended,
  };
}

/** Merge two lanes by time; each keeps its own order. */
export function merge(a: readonly SeenEvent[], b: readonly SeenEvent[]): SeenEvent[] {
  const out: SeenEvent[] = [];
  let next = 0;
  for (const event of a) {
    for (let other = b[next]; other && !(timeOf(other) > timeOf(event)); other = b[next]) {
      out.push(other);
      next += 1;
    }
    out.push(event);
  }
  return [...out, ...b.slice(next)];
}
