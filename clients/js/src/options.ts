/** The settings of a `SocketClient`, and what can be seen of it. */

import type { ConnectionState } from "./connection.js";
import { InvalidRequest } from "./errors.js";
import type { HealthOptions } from "./health.js";
import type { OutboxOptions } from "./outbox.js";
import type { KeepingPlace } from "./persist.js";
import type { Platform, SocketOptions } from "./platform.js";
import type { Refusal } from "./wire.js";

/** A token, or a function that is asked for a fresh one at every connect. */
export type TokenSource =
  | string
  | (() => string | null | undefined | Promise<string | null | undefined>);

export interface SocketClientOptions {
  /**
   * The path of the server's Socket.IO; default `/socket.io` under the path of the URL. Where it is given, a path
   * of the URL is Socket.IO's own: a namespace.
   */
  readonly path?: string;
  readonly token?: TokenSource;
  /** Names this client in the server's statistics over its reconnects; default a new one. */
  readonly clientId?: string;
  /** `source` of published events that don't name one; default `/clients/` and the client's id. */
  readonly source?: string;
  /** Connect at once; default true. */
  readonly autoConnect?: boolean;
  /** Retries after the failed first try; default 3. */
  readonly maxRetryAttempts?: number;
  /** Milliseconds before each retry; default 1000, 2000, 4000. */
  readonly retryDelays?: readonly number[];
  /** Emissions that wait for a connection; default 100. */
  readonly maxQueueSize?: number;
  /** Milliseconds without a ping after which a connection is stale; default 40000. */
  readonly pingTimeout?: number;
  /** Milliseconds between two checks for a stale connection; default 10000. */
  readonly healthCheckInterval?: number;
  /** Milliseconds after which a try without an acknowledgement has failed; default 15000. */
  readonly ackTimeout?: number;
  /** Milliseconds between two emissions of a queue that is flushed; default 100. */
  readonly flushSpacing?: number;
  /** The widest first delay before a reconnect, and the widest ever, in milliseconds; 1000 and 15000. */
  readonly reconnectDelay?: number;
  readonly reconnectDelayMax?: number;
  /**
   * Keep the offline queue over a reload of this tab, and for the next one where it is closed or crashes: true, or a
   * name where a page has several clients, or a browser several users.
   */
  readonly persistQueue?: boolean | string;
  /** More options for socket.io-client, `transports` or `extraHeaders`. */
  readonly socket?: SocketOptions;
  /** In place of the browser's or Node's own; for tests. */
  readonly platform?: Partial<Platform>;
  /** In place of the browser's own; for tests. */
  readonly place?: KeepingPlace;
}

export type ClientState = Exclude<ConnectionState, "waiting"> | "offline" | "stale";

export interface ClientSnapshot {
  readonly state: ClientState;
  /** The server's node, once it said welcome. */
  readonly node: string | null;
  /** Whether the server speaks this protocol: there was a welcome on this connection. */
  readonly welcomed: boolean;
  /** The last refusal or `error` of this connection. */
  readonly error: Refusal | null;
  /** Why the server asked to leave. */
  readonly goaway: string | null;
}

export interface ConnectionMetrics {
  readonly isConnected: boolean;
  /** Seconds of this connection; 0 while there is none. */
  readonly uptime: number;
  /** Seconds since the last ping of the server; null if none ever came. */
  readonly lastPing: number | null;
  /** Emissions that wait for a connection or for their turn. */
  readonly queuedEvents: number;
  /** Emissions that are sent and not yet acknowledged, those between two tries included. */
  readonly pendingEmissions: number;
  /** Retries so far. */
  readonly retryAttempts: number;
  /** Connections that ended so far. */
  readonly disconnects: number;
  /** Seconds without a connection; 0 while there is one. */
  readonly disconnectedFor: number;
  /** Events that came from the log after a subscribe. */
  readonly replayed: number;
  readonly duplicatesDropped: number;
  readonly gapsRepaired: number;
  /** Events that were gone from the log before they could be read. */
  readonly lost: number;
  /** Messages of the protocol that weren't of its form. */
  readonly malformed: number;
  /** Plain emissions that waited for a connection and didn't fit into the buffer, or couldn't be sent then. */
  readonly emitsDropped: number;
  /** Token functions that failed. */
  readonly tokenFailures: number;
  /** Emissions that couldn't be kept for a reload. */
  readonly keepFailures: number;
}

/** The settings that are numbers, with the least that each can be. */
const LEAST = {
  maxRetryAttempts: 0,
  maxQueueSize: 0,
  pingTimeout: 1,
  healthCheckInterval: 1,
  ackTimeout: 1,
  flushSpacing: 0,
  reconnectDelay: 0,
  reconnectDelayMax: 0,
} as const;

/**
 * Give a number back, or raise `InvalidRequest`: of what is none a comparison says no, which would make of a wait
 * none at all, and of a limit one that nothing fits in.
 */
export function numberFrom(least: number, value: unknown, name: string): number {
  if (typeof value === "number" && value >= least) return value;
  throw new InvalidRequest(`${name} must be a number, ${least} or more, and not ${String(value)}`);
}

/** Give milliseconds before retries back; raises as `numberFrom` does. */
export function delaysOf(value: unknown, name: string): number[] {
  if (!Array.isArray(value)) throw new InvalidRequest(`${name} must be a list of milliseconds`);
  return value.map((delay: unknown) => numberFrom(0, delay, `each of ${name}`));
}

/** Give a setting back that is a number; raises as `numberFrom` does. */
export function setting(name: keyof typeof LEAST, value: unknown): number {
  return numberFrom(LEAST[name], value, name);
}

/** Raise `InvalidRequest` for a URL or a setting that can't be. */
export function checkOptions(url: unknown, options: SocketClientOptions): void {
  if (url !== undefined && typeof url !== "string")
    throw new InvalidRequest("the URL must be a text, as in new SocketClient(url, options)");
  for (const name of Object.keys(LEAST) as (keyof typeof LEAST)[]) {
    if (options[name] !== undefined) setting(name, options[name]);
  }
  if (options.retryDelays !== undefined) delaysOf(options.retryDelays, "retryDelays");
}

/** The settings of the outbox. */
export function outboxOptions(options: SocketClientOptions): OutboxOptions {
  const { maxQueueSize, ackTimeout, flushSpacing: spacing } = options;
  return {
    ...(maxQueueSize !== undefined && { maxQueueSize }),
    ...(ackTimeout !== undefined && { ackTimeout }),
    ...(spacing !== undefined && { spacing }),
  };
}

/** The settings of the health checks. */
export function healthOptions(options: SocketClientOptions): HealthOptions {
  const { pingTimeout, healthCheckInterval: checkInterval } = options;
  return {
    ...(pingTimeout !== undefined && { pingTimeout }),
    ...(checkInterval !== undefined && { checkInterval }),
  };
}
