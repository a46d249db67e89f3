/** What the server tells of itself, read from its answers, and rates from two of them. Pure. */

import type { Lane } from "@steadcast/client";
import { fieldsOf, textOf } from "./seen.js";

type Fields = { readonly [name: string]: unknown };

function number(fields: Fields | null, name: string): number {
  const value = fields?.[name];
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

function numberOrNull(fields: Fields | null, name: string): number | null {
  const value = fields?.[name];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function listOf(fields: Fields | null, name: string): Fields[] {
  const value = fields?.[name];
  return Array.isArray(value) ? value.map(fieldsOf).filter((each) => each !== null) : [];
}

export type ClientState = "live" | "replaying" | "lagging" | "plain" | "leaving";

export interface ConnectedClient {
  readonly id: string;
  readonly clientId: string | null;
  readonly transport: string;
  readonly state: ClientState;
  /** Seconds. */
  readonly uptime: number;
  readonly reconnects: number;
  readonly failures: number;
  /** Seconds; null before its first pong. */
  readonly roundTrip: number | null;
  /** Events; null where it can't be counted yet. */
  readonly lag: number | null;
  /** The share of its ack window that is used, from 0 to 1. */
  readonly window: number;
  readonly streams: readonly string[];
}

export interface ClientList {
  readonly total: number;
  readonly clients: readonly ConnectedClient[];
}

const STATES: readonly string[] = ["live", "replaying", "lagging", "plain", "leaving"];

/** Read the answer of `GET v1/clients`; null where it isn't of the form. */
export function parseClients(body: unknown): ClientList | null {
  const fields = fieldsOf(body);
  if (!fields || !Array.isArray(fields.clients)) return null;
  const clients = listOf(fields, "clients").map((each) => ({
    id: textOf(each, "id") ?? "",
    clientId: textOf(each, "client_id"),
    transport: textOf(each, "transport") ?? "",
    state: (STATES.includes(String(each.state)) ? each.state : "plain") as ClientState,
    uptime: number(each, "uptime"),
    reconnects: number(each, "reconnects"),
    failures: number(each, "failures"),
    roundTrip: numberOrNull(each, "round_trip"),
    lag: numberOrNull(each, "lag"),
    window: number(each, "window"),
    streams: Object.keys(fieldsOf(each.streams) ?? {}),
  }));
  return { total: number(fields, "total"), clients };
}

/** The retry queue's five numbers, as the specification names them. */
export const QUEUE = ["queued", "retried", "succeeded", "abandoned", "queue_size"] as const;

export interface Stats {
  /** When it was asked for, in milliseconds of a clock that never jumps. */
  readonly at: number;
  readonly node: string;
  readonly version: string;
  /** Seconds. */
  readonly uptime: number;
  readonly engine: {
    readonly available: boolean;
    readonly epoch: string | null;
    readonly events: number;
    readonly bytes: number;
  };
  readonly breaker: string | null;
  /** Seconds until an open breaker lets a try through. */
  readonly breakerRetry: number;
  readonly queue: { readonly [name in (typeof QUEUE)[number]]: number } | null;
  readonly abandonedBy: readonly (readonly [string, number])[];
  readonly sessions: {
    readonly live: number;
    readonly replaying: number;
    readonly lagging: number;
  };
  /** Counters: events that came in, events that went out, live and from the log. */
  readonly accepted: number;
  readonly duplicates: number;
  readonly delivered: number;
  readonly replayed: number;
}

/** Read the answer of `GET v1/stats`; null where it isn't of the form. */
export function parseStats(body: unknown, at: number): Stats | null {
  const fields = fieldsOf(body);
  const hub = fieldsOf(fields?.hub);
  if (!fields || !hub) return null;
  const engine = fieldsOf(fields.engine);
  const counts = fieldsOf(hub.counts);
  const sessions = fieldsOf(hub.sessions);
  const cast = fieldsOf(fields.broadcaster);
  const breaker = fieldsOf(cast?.breaker);
  const queue = fieldsOf(cast?.retry_queue);
  return {
    at,
    node: textOf(fields, "node") ?? "",
    version: textOf(fields, "version") ?? "",
    uptime: number(fields, "uptime"),
    engine: {
      available: engine?.available === true,
      epoch: textOf(engine, "epoch"),
      events: number(engine, "events"),
      bytes: number(engine, "bytes"),
    },
    breaker: textOf(breaker, "state"),
    breakerRetry: number(breaker, "retry_after"),
    queue: queue && {
      queued: number(queue, "queued"),
      retried: number(queue, "retried"),
      succeeded: number(queue, "succeeded"),
      abandoned: number(queue, "abandoned"),
      queue_size: number(queue, "queue_size"),
    },
    abandonedBy: Object.entries(fieldsOf(cast?.abandoned_by) ?? {}).filter(
      (pair): pair is [string, number] => typeof pair[1] === "number" && pair[1] > 0,
    ),
    sessions: {
      live: number(sessions, "live"),
      replaying: number(sessions, "replaying"),
      lagging: number(sessions, "lagging"),
    },
    accepted: number(counts, "accepted"),
    duplicates: number(counts, "duplicates"),
    delivered: number(counts, "deliveries"),
    replayed: number(counts, "replayed"),
  };
}

export interface Rates {
  readonly accepted: number;
  readonly delivered: number;
  readonly replayed: number;
}

/** Events per second between two looks; null before the second, or where the server began anew meanwhile. */
export function ratesOf(before: Stats | null, now: Stats): Rates | null {
  if (before === null || before.node !== now.node || now.accepted < before.accepted) return null;
  const seconds = (now.at - before.at) / 1_000;
  if (seconds <= 0) return null;
  const rate = (name: "accepted" | "delivered" | "replayed") => {
    return Math.max(0, now[name] - before[name]) / seconds;
  };
  return { accepted: rate("accepted"), delivered: rate("delivered"), replayed: rate("replayed") };
}

export interface LaneRow {
  readonly stream: string;
  readonly system: boolean;
  readonly lane: Lane;
  readonly head: number;
  readonly trimmed: number;
  readonly events: number;
  readonly bytes: number;
}

export interface Retention {
  /** Seconds. */
  readonly age: number;
  readonly events: number;
  readonly bytes: number;
}

export interface StreamList {
  readonly epoch: string;
  readonly retention: Retention;
  readonly lanes: readonly LaneRow[];
}

const LANES: readonly Lane[] = ["critical", "normal"];

/** Read the answer of `GET v1/streams`; null where it isn't of the form. */
export function parseLanes(body: unknown): StreamList | null {
  const fields = fieldsOf(body);
  if (!fields || !Array.isArray(fields.streams)) return null;
  const kept = fieldsOf(fields.retention);
  const lanes = listOf(fields, "streams").flatMap((stream) => {
    const all = fieldsOf(stream.lanes);
    return LANES.filter((lane) => all && lane in all).map((lane) => {
      const told = fieldsOf(all?.[lane]);
      const head = Array.isArray(told?.head) ? told.head[1] : 0;
      return {
        stream: textOf(stream, "stream") ?? "",
        system: stream.system === true,
        lane,
        head: typeof head === "number" ? head : 0,
        trimmed: number(told, "trimmed"),
        events: number(told, "events"),
        bytes: number(told, "bytes"),
      };
    });
  });
  const retention = {
    age: number(kept, "age"),
    events: number(kept, "events"),
    bytes: number(kept, "bytes"),
  };
  return { epoch: textOf(fields, "epoch") ?? "", retention, lanes };
}

export interface DeadEvent {
  readonly id: string;
  readonly stream: string;
  readonly type: string;
  readonly reason: string;
  readonly error: string | null;
  readonly attempts: number;
  readonly at: string;
  readonly data: unknown;
}

export interface DeadList {
  /** The newest first. */
  readonly dead: readonly DeadEvent[];
  /** Some may be missing where the log couldn't be read. */
  readonly complete: boolean;
}

/** Read the answer of `GET v1/dead`; null where it isn't of the form. */
export function parseDead(body: unknown): DeadList | null {
  const fields = fieldsOf(body);
  if (!fields || !Array.isArray(fields.dead)) return null;
  const dead = listOf(fields, "dead").map((each) => {
    const event = fieldsOf(each.event);
    return {
      id: textOf(each, "id") ?? "",
      stream: textOf(each, "stream") ?? "",
      type: textOf(event, "type") ?? "",
      reason: textOf(each, "reason") ?? "",
      error: textOf(each, "error"),
      attempts: number(each, "attempts"),
      at: textOf(each, "at") ?? "",
      data: event?.data,
    };
  });
  return { dead: dead.reverse(), complete: fields.complete !== false };
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Bytes as "512 B", "1.5 MiB". */
export function bytesWords(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1_024 && unit < UNITS.length - 1) {
    value /= 1_024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** Seconds of retention as "7 days", "12 hours", "90 s". */
export function ageWords(seconds: number): string {
  const parts = [
    [86_400, "day"],
    [3_600, "hour"],
    [60, "minute"],
  ] as const;
  for (const [size, name] of parts) {
    if (seconds >= size && seconds % size === 0) {
      const value = seconds / size;
      return `${value} ${name}${value === 1 ? "" : "s"}`;
    }
  }
  return `${seconds} s`;
}

/** Seconds of a round trip as "0.8 ms", "12 ms", "1.20 s". */
export function tripWords(seconds: number): string {
  const ms = seconds * 1_000;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${seconds.toFixed(2)} s`;
}
