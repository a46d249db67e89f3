/** The adapter: what the TypeScript client knows, as runes. Streams are the client's business alone. */

import type {
  ClientSnapshot,
  ConnectionMetrics,
  SocketClient,
  SubscriptionSnapshot,
} from "@steadcast/client";
import type { LiveState, SeenEvent, Watcher } from "./contract.js";
import { compile, type Matcher } from "./filter.js";
import { Following } from "./following.js";
import { type Pill, pillOf } from "./pill.js";
import { NO_FILTER } from "./query.js";
import type { Row } from "./row.js";
import { soon } from "./soon.js";

/** Milliseconds between two looks while there is no connection. */
const TICK = 1_000;

export class Live implements LiveState {
  client: ClientSnapshot = $state.raw() as ClientSnapshot;
  metrics: ConnectionMetrics = $state.raw() as ConnectionMetrics;
  subscription: SubscriptionSnapshot | null = $state.raw(null);
  pill: Pill = $state.raw() as Pill;
  recent: readonly SeenEvent[] = $state.raw([]);
  /** The rows that match the filter, of those that the page keeps. */
  rows: readonly Row[] = $state.raw([]);
  /** Rows that the page keeps. */
  size = $state(0);
  /** Losses among them; they match every filter. */
  losses = $state(0);
  /** Times that something may be gone, and nobody can tell how much: a log replaced, a range unknown. */
  unsure = $state(0);
  /** Rows that left the page. */
  dropped = $state(0);
  applied = $state(0);
  stream: string | null = $state(null);
  at = $state(0);
  private matches: Matcher | null = compile(NO_FILTER);
  private tick: ReturnType<typeof setTimeout> | undefined;
  private readonly followed = new Map<string, Following>();
  private chosen: Following | undefined;
  private leave: (() => void) | undefined;
  private readonly refresh = soon(() => this.take());

  constructor(readonly socket: SocketClient) {
    socket.onChange(this.refresh);
    this.take();
  }

  /** Show another stream, or none. */
  choose(stream: string | null): void {
    if (stream === this.stream) return;
    this.stream = stream;
    const before = this.leave;
    this.chosen = undefined;
    this.leave = stream === null ? undefined : this.follow(stream, { events: () => {} });
    this.chosen = stream === null ? undefined : this.followed.get(stream);
    before?.();
    this.take();
  }

  /** Hear of a stream; see `Page.follow`. */
  follow(stream: string, watcher: Watcher): () => void {
    const following = this.followed.get(stream) ?? new Following(this.socket, stream, this.refresh);
    this.followed.set(stream, following);
    const end = following.watch(watcher);
    return () => {
      end();
      if (!following.idle || !this.followed.delete(stream)) return;
      following.subscription.unsubscribe();
    };
  }

  filter(matches: Matcher | null): void {
    this.matches = matches;
    this.refresh();
  }

  /** Keep more rows, because somebody reads further up. */
  hold(held: boolean): void {
    this.chosen?.feed.hold(held);
    this.refresh();
  }

  private take(): void {
    this.at = Date.now();
    clearTimeout(this.tick);
    // Nothing happens while there is no connection, but time passes.
    if (!this.socket.snapshot().welcomed) this.tick = setTimeout(this.refresh, TICK);
    this.client = this.socket.snapshot();
    this.metrics = this.socket.getConnectionMetrics();
    this.subscription = this.chosen?.subscription.snapshot() ?? null;
    this.pill = pillOf(this, this.at);
    const feed = this.chosen?.feed;
    this.rows = feed?.shown(this.matches) ?? [];
    this.recent = feed?.events() ?? [];
    this.size = feed?.size ?? 0;
    this.losses = feed?.losses ?? 0;
    this.dropped = feed?.dropped ?? 0;
    this.applied = feed?.applied ?? 0;
    this.unsure = this.chosen?.unsure ?? 0;
  }
}
