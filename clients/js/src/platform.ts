/** What the shell takes from the outside: clock, chance, socket and the signs of life of a page. */

import { io } from "socket.io-client";

/** The part of a Socket.IO socket that the client uses. */
export interface SocketLike {
  readonly connected: boolean;
  readonly sendBuffer: unknown[];
  emit(event: string, ...args: unknown[]): unknown;
  on(event: string, listener: (...args: never[]) => void): unknown;
  onAny(listener: (event: string, ...args: unknown[]) => void): unknown;
  offAny(): unknown;
  removeAllListeners(): unknown;
  connect(): unknown;
  disconnect(): unknown;
}

/** Options that are handed to socket.io-client as they are. */
export type SocketOptions = { readonly [option: string]: unknown };

export interface Platform {
  /** Monotonic milliseconds. */
  now(): number;
  /** The wall clock, RFC 3339. */
  date(): string;
  /** A number in [0, 1). */
  random(): number;
  /** A name that no other has; those that are made later sort behind. */
  uuid(): string;
  /** Make a socket that is not yet connected and never reconnects by itself. */
  socket(url: string | undefined, options: SocketOptions): SocketLike;
  /** Call back when the network or the tab is back; returns what ends it. */
  onWake(wake: () => void): () => void;
  /** Hand over an error that no caller can catch. */
  report(error: unknown): void;
}

/**
 * A UUID of version 7 (RFC 9562, section 5.7): Unix milliseconds, then random bits. Ids that begin with their time
 * lie side by side in the log's index. `crypto.randomUUID` makes none, and is missing on pages that came over plain
 * http from another machine.
 */
export function uuid(): string {
  const time = Date.now().toString(16).padStart(12, "0");
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${hex.slice(0, 3)}-a${hex.slice(3, 6)}-${hex.slice(6, 18)}`;
}

function onWake(wake: () => void): () => void {
  // Node has neither; a worker has the network's events, and no document.
  if (typeof addEventListener !== "function") return () => undefined;
  const page = typeof document === "undefined" ? undefined : document;
  const visible = () => {
    if (page?.visibilityState === "visible") wake();
  };
  addEventListener("online", wake);
  addEventListener("pageshow", wake);
  page?.addEventListener("visibilitychange", visible);
  return () => {
    removeEventListener("online", wake);
    removeEventListener("pageshow", wake);
    page?.removeEventListener("visibilitychange", visible);
  };
}

/** Throw where nobody awaits: an uncaught error is seen by the program's own handlers and by the console. */
function report(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}

/** The browser's or Node's own. */
export const PLATFORM: Platform = {
  now: () => performance.now(),
  date: () => new Date().toISOString(),
  random: () => Math.random(),
  uuid,
  // WebSocket first: one connection and no upgrade; long polling where a proxy stands in its way.
  socket: (url, options) => {
    const all = {
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      ...options,
      forceNew: true,
      reconnection: false,
      autoConnect: false,
    };
    return url === undefined ? io(all) : io(url, all);
  },
  onWake,
  report,
};
