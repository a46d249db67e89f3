/** The metrics of a client's parts. */

import type { Connection } from "./connection.js";
import type { Emissions } from "./emissions.js";
import type { Health } from "./health.js";
import type { ConnectionMetrics } from "./options.js";
import type { WireSocket } from "./wire_socket.js";

interface Parts {
  readonly connection: Connection;
  readonly health: Health;
  readonly emissions: Emissions;
  readonly wire: WireSocket;
}

/** What the connection, and what is emitted over it, did so far; `now` in milliseconds. */
export function metricsOf({ connection, health, emissions, wire }: Parts, now: number) {
  const { outbox, keepFailures } = emissions;
  const silent = health.sinceLastPing(now);
  return {
    isConnected: connection.state === "online",
    uptime: connection.uptime(now) / 1_000,
    lastPing: silent === null ? null : silent / 1_000,
    queuedEvents: outbox.queued,
    pendingEmissions: outbox.pending,
    retryAttempts: outbox.counts.retries,
    disconnects: connection.disconnects,
    disconnectedFor: connection.disconnectedFor(now) / 1_000,
    emitsDropped: wire.emitsDropped,
    tokenFailures: wire.tokenFailures,
    keepFailures,
  } satisfies Partial<ConnectionMetrics>;
}
