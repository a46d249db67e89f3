/**
 * The wire, protocol version 1: the shapes that travel, and guards for what comes in.
 *
 * Everything here is pure. A guard returns `undefined` for what isn't of the form; the caller counts it.
 */

/** The protocol version that this client speaks. */
export const VERSION = 1;

/** One of a stream's two logs; an event's priority chooses it. */
export type Lane = "critical" | "normal";

/** Both lanes, in the order in which they are read. */
export const LANES: readonly Lane[] = ["critical", "normal"];

/** A place in a lane: the epoch of its log and an offset in it. */
export type Position = readonly [epoch: string, offset: number];

/** The last position that was applied, and that event's id where it is known. */
export type Cursor = readonly [epoch: string, offset: number, id?: string];

/** The cursors of a stream; a lane that was never answered has none. */
export type Cursors = { readonly [lane in Lane]?: Cursor };

/** Where a lane without a cursor begins. */
export type From = "start" | "end" | { readonly last: number };

/** An event as a batch carries it: CloudEvents 1.0 plus `priority`, at its offset. */
export interface StreamEvent {
  readonly offset: number;
  readonly id: string;
  readonly source: string;
  readonly type: string;
  /** RFC 3339. */
  readonly time: string;
  readonly priority: Lane;
  readonly subject?: string;
  readonly data: unknown;
}

/** Consecutive events of a lane: none with an offset in (`after`, `upto`] is missing. */
export interface Batch {
  readonly stream: string;
  readonly lane: Lane;
  readonly epoch: string;
  readonly after: number;
  readonly upto: number;
  readonly events: readonly StreamEvent[];
}

export type LaneStatus = "new" | "resumed" | "trimmed" | "reset";

/** One lane's part of the answer to `subscribe`. */
export interface LaneAnswer {
  readonly status: LaneStatus;
  readonly cursor: Position;
  readonly head: Position;
  /** Events between cursor and head; null where the engine can't tell. */
  readonly behind: number | null;
  /** First and last offset that are gone. */
  readonly lost?: readonly [number, number];
  /** Whether the engine can't know if any event was in `lost`. */
  readonly maybe?: boolean;
}

export type LaneAnswers = { readonly [lane in Lane]?: LaneAnswer };

/** The heads of a stream's lanes, as a `ping` tells them. */
export type Heads = { readonly [lane in Lane]?: Position };

export interface Welcome {
  readonly version: number;
  readonly node: string;
  /** Seconds between pings, where they are more than every client counts on. */
  readonly pingInterval?: number;
}

export interface Ping {
  /** Goes back as it came. */
  readonly time: number | string;
  readonly heads: ReadonlyMap<string, Heads>;
}

export interface Goaway {
  readonly reason: string;
  /** Seconds. */
  readonly reconnectIn: readonly [min: number, max: number];
}

/** A refusal, in a failed ack, an `error` event or a refused connect. */
export interface Refusal {
  readonly code: string;
  readonly temporary: boolean;
  readonly message: string;
  /** Seconds. */
  readonly retryAfter?: number;
}

/** Where a published event stands. */
export interface Receipt {
  readonly id: string;
  readonly lane: Lane;
  readonly position: Position;
  readonly duplicate: boolean;
}

/** An event as it is handed to `publish`; what is left out is filled in. */
export interface NewEvent {
  readonly type: string;
  readonly data: unknown;
  readonly id?: string;
  readonly source?: string;
  readonly time?: string;
  readonly priority?: Lane;
  readonly subject?: string;
}

type Fields = { readonly [key: string]: unknown };

export function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function isLane(value: unknown): value is Lane {
  return value === "critical" || value === "normal";
}

function isOffset(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

const EPOCH = /^[A-Za-z0-9_-]{1,64}$/;
const STREAM = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;

function isEpoch(value: unknown): value is string {
  return typeof value === "string" && EPOCH.test(value);
}

/** Whether a name is one that a stream can have. */
export function isStreamName(value: unknown): value is string {
  return typeof value === "string" && STREAM.test(value);
}

function parsePosition(value: unknown): Position | undefined {
  if (!Array.isArray(value) || value.length < 2) return undefined;
  const [epoch, offset] = value as readonly unknown[];
  return isEpoch(epoch) && isOffset(offset) ? [epoch, offset] : undefined;
}

/** Read a cursor that was kept, `[epoch, offset, id?]`. */
export function parseCursor(value: unknown): Cursor | undefined {
  const position = parsePosition(value);
  if (!position) return undefined;
  const id: unknown = (value as readonly unknown[])[2];
  if (id === undefined || id === null) return position;
  return typeof id === "string" ? [position[0], position[1], id] : undefined;
}

/** Read the cursors of a stream that were kept; a lane that doesn't hold one is left out. */
export function parseCursors(value: unknown): Cursors {
  const cursors: { [lane in Lane]?: Cursor } = {};
  if (!isObject(value)) return cursors;
  for (const lane of LANES) {
    const cursor = parseCursor(value[lane]);
    if (cursor) cursors[lane] = cursor;
  }
  return cursors;
}

function isEvent(value: unknown): value is StreamEvent {
  return (
    isObject(value) &&
    isOffset(value.offset) &&
    typeof value.id === "string" &&
    typeof value.source === "string" &&
    typeof value.type === "string" &&
    typeof value.time === "string" &&
    isLane(value.priority) &&
    (value.subject === undefined || value.subject === null || typeof value.subject === "string")
  );
}

/** Read a `batch`: offsets must grow and lie in (`after`, `upto`]. */
export function parseBatch(value: unknown): Batch | undefined {
  if (!isObject(value)) return undefined;
  const { stream, lane, epoch, after, upto, events } = value;
  if (typeof stream !== "string" || !isLane(lane) || !isEpoch(epoch)) return undefined;
  if (!isOffset(after) || !isOffset(upto) || upto < after || !Array.isArray(events))
    return undefined;
  let last = after;
  for (const event of events as readonly unknown[]) {
    if (!isEvent(event) || event.offset <= last || event.offset > upto) return undefined;
    last = event.offset;
  }
  return { stream, lane, epoch, after, upto, events: events as readonly StreamEvent[] };
}

function isStatus(value: unknown): value is LaneStatus {
  return value === "new" || value === "resumed" || value === "trimmed" || value === "reset";
}

function parseRange(value: unknown): readonly [number, number] | undefined {
  if (!Array.isArray(value) || value.length !== 2) return undefined;
  const [first, last] = value as readonly unknown[];
  return isOffset(first) && isOffset(last) && first <= last ? [first, last] : undefined;
}

function parseLaneAnswer(value: unknown): LaneAnswer | undefined {
  if (!isObject(value) || !isStatus(value.status)) return undefined;
  const cursor = parsePosition(value.cursor);
  const head = parsePosition(value.head);
  const behind = value.behind ?? null;
  if (!cursor || !head || !(behind === null || isOffset(behind))) return undefined;
  const lost = parseRange(value.lost);
  return {
    status: value.status,
    cursor,
    head,
    behind,
    ...(lost && { lost }),
    ...(value.maybe === true && { maybe: true }),
  };
}

/** Read the `lanes` of a `subscribe`'s answer; every lane that is there must be of the form. */
export function parseLaneAnswers(value: unknown): LaneAnswers | undefined {
  if (!isObject(value)) return undefined;
  const answers: { [lane in Lane]?: LaneAnswer } = {};
  for (const lane of LANES) {
    if (value[lane] === undefined) continue;
    const answer = parseLaneAnswer(value[lane]);
    if (!answer) return undefined;
    answers[lane] = answer;
  }
  return answers;
}

export function parseWelcome(value: unknown): Welcome | undefined {
  if (!isObject(value) || !Number.isSafeInteger(value.version)) return undefined;
  const { version, node, ping_interval: pingInterval } = value;
  return {
    version: version as number,
    node: String(node ?? ""),
    ...(isSeconds(pingInterval) && { pingInterval }),
  };
}

export function parseHeads(value: unknown): Heads {
  const heads: { [lane in Lane]?: Position } = {};
  if (!isObject(value)) return heads;
  for (const lane of LANES) {
    const head = parsePosition(value[lane]);
    if (head) heads[lane] = head;
  }
  return heads;
}

export function parsePing(value: unknown): Ping | undefined {
  if (!isObject(value)) return undefined;
  const { time } = value;
  if (typeof time !== "number" && typeof time !== "string") return undefined;
  const heads = new Map<string, Heads>();
  if (isObject(value.heads)) {
    for (const [stream, lanes] of Object.entries(value.heads)) heads.set(stream, parseHeads(lanes));
  }
  return { time, heads };
}

export function parseGoaway(value: unknown): Goaway | undefined {
  if (!isObject(value) || !Array.isArray(value.reconnect_in)) return undefined;
  const [min, max] = value.reconnect_in as readonly unknown[];
  if (!isSeconds(min) || !isSeconds(max)) return undefined;
  return {
    reason: String(value.reason ?? ""),
    reconnectIn: [Math.min(min, max), Math.max(min, max)],
  };
}

function isSeconds(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

/** Read the `error` object of a failed ack, an `error` event or a refused connect's `data`. */
export function parseRefusal(value: unknown, message = ""): Refusal | undefined {
  if (!isObject(value) || typeof value.code !== "string") return undefined;
  return {
    code: value.code,
    temporary: value.temporary === true,
    message: typeof value.message === "string" ? value.message : message,
    ...(isSeconds(value.retry_after) && { retryAfter: value.retry_after }),
  };
}

/** Tell a failed ack, `{ok: false, error}`, from every other answer, which is a success. */
export function refusalOf(answer: unknown): Refusal | undefined {
  return isObject(answer) && answer.ok === false ? parseRefusal(answer.error) : undefined;
}

/** Read the `results` of a `publish`. */
export function parseReceipts(answer: unknown): readonly Receipt[] | undefined {
  if (!isObject(answer) || !Array.isArray(answer.results)) return undefined;
  const receipts: Receipt[] = [];
  for (const each of answer.results as readonly unknown[]) {
    if (!isObject(each) || typeof each.id !== "string" || !isLane(each.lane)) return undefined;
    const position = parsePosition(each.position);
    if (!position) return undefined;
    receipts.push({ id: each.id, lane: each.lane, position, duplicate: each.duplicate === true });
  }
  return receipts;
}

/** Give an event's size as limits and windows count it: data, texts and 64 for the rest. */
export function sizeOf(event: StreamEvent): number {
  const texts = event.id.length + event.source.length + event.type.length;
  return texts + (event.subject?.length ?? 0) + 64 + (JSON.stringify(event.data)?.length ?? 4);
}

/** Give a new event what it leaves out, so that every retry sends the same. */
export function fillEvent(
  event: NewEvent,
  defaults: { readonly id: string; readonly source: string; readonly time: string },
): NewEvent {
  const { id = defaults.id, source = defaults.source, time = defaults.time } = event;
  return { ...event, id, source, time };
}
