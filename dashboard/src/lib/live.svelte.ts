/** The adapter: what the TypeScript client knows, as runes. Streams are the client's business alone. */

import type {
  ClientSnapshot,
  ConnectionMetrics,
  SocketClient,
  SubscriptionSnapshot,
} from "@steadcast/client";
import type { LiveState, SeenEvent, Watcher } from "./contract.js";
import { Following } from "./following.js";
import { lookOf, type Pill, pillOf, without } from "./pill.js";
import { soon } from "./soon.js";
import { type Cut, Story } from "./story.js";
import { ANNOUNCED } from "./streams.js";

/** Milliseconds between two looks while there is no connection. */
const TICK = 1_000;
/** More events than this between two looks are read by nobody one by one: the page is drawn less often. */
const MANY = 60;
const SELDOM = 100;

export class Live implements LiveState {
  client: ClientSnapshot = $state.raw() as ClientSnapshot;
  metrics: ConnectionMetrics = $state.raw() as ConnectionMetrics;
  subscription: SubscriptionSnapshot | null = $state.raw(null);
  pill: Pill = $state.raw() as Pill;
  /** The last cuts, the newest first. */
  cuts: readonly Cut[] = $state.raw([]);
  /** What follows the chosen stream. */
  chosen: Following | null = $state.raw(null);
  applied = $state(0);
  /** Times that something may be gone, and nobody can tell how much: a log replaced, a range unknown. */
  unsure = $state(0);
  at = $state(0);
  readonly recent: readonly SeenEvent[] = $derived.by(() => {
    // Taken with everything else, so that what a view reads belongs together.
    void this.at;
    void this.applied;
    return this.chosen?.tail.events() ?? [];
  });
  private tick: ReturnType<typeof setTimeout> | undefined;
  private leave: (() => void) | undefined;
  private readonly followed = new Map<string, Following>();
  private readonly story = new Story();
  private readonly refresh = soon(() => this.take());

  constructor(readonly socket: SocketClient) {
    socket.onChange(this.refresh);
    this.take();
  }

  get stream(): string | null {
    return this.chosen?.stream ?? null;
  }

  /** Why the server refuses the stream. */
  get refusal(): string {
    return this.chosen?.refusal ?? "";
  }

  /** Show another stream, or none. */
  choose(stream: string | null): void {
    if (stream === this.stream) return;
    const before = this.leave;
    this.leave = stream === null ? undefined : this.follow(stream, { events: () => {} });
    this.chosen = this.followed.get(stream ?? "") ?? null;
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

  /** Whether everything of a stream comes here as it is published. */
  hears(stream: string): boolean {
    return this.followed.get(stream)?.subscription.snapshot().state === "live";
  }

  private take(): number {
    const { chosen } = this;
    this.at = Date.now();
    clearTimeout(this.tick);
    // Nothing happens while there is no connection, but time passes.
    if (!this.socket.snapshot().welcomed) this.tick = setTimeout(this.refresh, TICK);
    this.client = this.socket.snapshot();
    const own = this.followed.get(ANNOUNCED)?.subscription.snapshot().counts;
    this.metrics = without(this.socket.getConnectionMetrics(), own);
    this.subscription = chosen?.subscription.snapshot() ?? null;
    this.pill = pillOf(this, this.at);
    this.story.look(lookOf(this.pill, this.metrics, this.at));
    this.cuts = this.story.cuts;
    this.unsure = chosen?.unsure ?? 0;
    const came = (chosen?.tail.applied ?? 0) - this.applied;
    this.applied += came;
    chosen?.show(this.at);
    return came > MANY ? SELDOM : 0;
  }
}
