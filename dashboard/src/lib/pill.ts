/** The state of delivery in a word. Pure. */

import type {
  ClientSnapshot,
  ConnectionMetrics,
  Counts,
  Progress,
  SubscriptionSnapshot,
} from "@steadcast/client";
import { count, when } from "./format.js";
import type { Look } from "./story.js";

export type PillKind =
  | "connecting"
  | "connected"
  | "live"
  | "replaying"
  | "draining"
  | "stale"
  | "offline"
  | "refused";

export interface Pill {
  readonly kind: PillKind;
  readonly label: string;
  /** What more there is to say. */
  readonly detail: string;
  /** While replaying, where it can be told. */
  readonly progress: { readonly done: number; readonly total: number } | null;
  /** While offline: milliseconds of Unix time. */
  readonly since: number | null;
}

export interface Delivery {
  readonly client: ClientSnapshot;
  readonly metrics: ConnectionMetrics;
  readonly subscription: SubscriptionSnapshot | null;
  /** Why the stream is refused, where it is; in the server's words. */
  readonly refusal?: string;
}

const PLAIN = { detail: "", progress: null, since: null } as const;

/** Say how delivery stands; `now` is Unix time in milliseconds. */
export function pillOf(delivery: Delivery, now: number): Pill {
  const { client, subscription } = delivery;
  if (client.state === "refused") return refused(client.error?.message ?? "");
  if (client.state === "stale") return { ...PLAIN, kind: "stale", label: "stale", detail: STALE };
  if (!client.welcomed) return away(delivery, now);
  if (client.goaway !== null) return draining(client.goaway);
  if (subscription?.state === "refused") return refused(delivery.refusal ?? "");
  if (subscription?.state === "replaying") return replaying(subscription.progress);
  if (subscription?.state === "live")
    return { ...PLAIN, kind: "live", label: "live", detail: LIVE };
  return { ...PLAIN, kind: "connected", label: "connected", detail: CONNECTED };
}

/** Seconds for which a server that said it leaves is taken to come back at once. */
const LEAVING = 4;
const LIVE = "Events appear as they are published.";
const OFFLINE = "The page keeps its place, tries again by itself, and reads what it missed.";
const CONNECTED = "The server is there; no stream yet.";
const STALE = "The connection went silent; another one is being opened.";

function refused(message: string): Pill {
  return { ...PLAIN, kind: "refused", label: "refused", detail: message };
}

function draining(reason: string): Pill {
  const detail = `The server is leaving (${reason}); this page comes back to it by itself.`;
  return { ...PLAIN, kind: "draining", label: "server draining", detail };
}

function away({ client, metrics }: Delivery, now: number): Pill {
  if (client.goaway !== null && metrics.disconnectedFor < LEAVING) return draining(client.goaway);
  const coming = client.state === "online" || client.state === "connecting";
  if (metrics.disconnects === 0 && coming) {
    return { ...PLAIN, kind: "connecting", label: "connecting" };
  }
  const since = now - metrics.disconnectedFor * 1_000;
  return {
    ...PLAIN,
    kind: "offline",
    label: `offline since ${when(since, now)}`,
    detail: OFFLINE,
    since,
  };
}

function replaying(progress: Progress | null): Pill {
  const pill = { ...PLAIN, kind: "replaying", detail: "Reading from the log." } as const;
  if (!progress || progress.total === null || progress.total === 0) {
    return { ...pill, label: "replaying" };
  }
  const { total } = progress;
  // Events that were published meanwhile are replayed too: the count may pass what was behind at first.
  const done = Math.min(progress.done, total);
  return {
    ...pill,
    label: `replaying ${count(done)} of ${count(total)}`,
    progress: { done, total },
  };
}

/** Take off what a subscription counted that the page has for itself: it proves nothing to the reader. */
export function without(metrics: ConnectionMetrics, own: Counts | undefined): ConnectionMetrics {
  if (!own) return metrics;
  return {
    ...metrics,
    replayed: metrics.replayed - own.replayed,
    duplicatesDropped: metrics.duplicatesDropped - own.duplicatesDropped,
    gapsRepaired: metrics.gapsRepaired - own.gapsRepaired,
    lost: metrics.lost - own.lost,
  };
}

/** How delivery looks to the story of its cuts. */
export function lookOf(pill: Pill, metrics: ConnectionMetrics, at: number): Look {
  const { replayed, duplicatesDropped: duplicates, gapsRepaired: gaps, lost } = metrics;
  return { at, state: STATES[pill.kind], replayed, duplicates, gaps, lost };
}

/** Events that the page has yet to read; null where nobody can tell. */
export function lagOf(subscription: SubscriptionSnapshot | null): number | null {
  if (subscription?.state === "live") return 0;
  if (subscription?.state !== "replaying" || !subscription.progress) return null;
  const { done, total } = subscription.progress;
  return total === null ? null : Math.max(0, total - done);
}

const STATES = {
  live: "live",
  connected: "live",
  replaying: "replaying",
  stale: "stale",
  draining: "draining",
  offline: "offline",
  connecting: "other",
  refused: "other",
} as const;

/** The page's title: what is urgent first, then the state, since a tab shows little. */
export function titleOf(pill: Pill, lost: number, asking: number, stream: string | null): string {
  const state = pill.kind === "offline" ? "offline" : pill.label;
  const urgent = [
    lost > 0 ? `lost ${count(lost)}` : "",
    asking > 0 ? `${count(asking)} waiting` : "",
  ];
  const parts = [...urgent, state, stream ?? ""].filter(Boolean);
  return `${parts.join(" · ")} — Steadcast`;
}
