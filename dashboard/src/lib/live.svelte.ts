/** The adapter: what the TypeScript client knows, as runes. Streams are the client's business alone. */

import type {
  ClientSnapshot,
  ConnectionMetrics,
  Notice,
  Place,
  SocketClient,
  StreamEvent,
  Subscription,
  SubscriptionSnapshot,
} from "@steadcast/client";
import { Feed } from "./feed.js";
import { compile, type Matcher } from "./filter.js";
import type { Loss, Row } from "./row.js";
import { soon } from "./soon.js";

/** A page keeps nothing over a reload: it begins with so many events of each lane. */
export const LAST = 200;
/** Milliseconds between two looks while there is no connection. */
const TICK = 1_000;

export class Live {
  client: ClientSnapshot = $state.raw() as ClientSnapshot;
  metrics: ConnectionMetrics = $state.raw() as ConnectionMetrics;
  subscription: SubscriptionSnapshot | null = $state.raw(null);
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
  /** Events that were applied since the stream was chosen. */
  applied = $state(0);
  stream: string | null = $state(null);
  /** When all this was so, in milliseconds of Unix time. */
  at = $state(0);
  private feed = new Feed();
  private matches: Matcher | null = null;
  private tick: ReturnType<typeof setTimeout> | undefined;
  private following: Subscription | undefined;
  private readonly refresh = soon(() => this.take());

  constructor(readonly socket: SocketClient) {
    socket.onChange(this.refresh);
    this.take();
  }

  /** Show another stream, or none. */
  follow(stream: string | null): void {
    if (stream === this.stream) return;
    this.following?.unsubscribe();
    this.stream = stream;
    const feed = new Feed();
    this.feed = feed;
    this.following =
      stream === null
        ? undefined
        : this.socket.subscribe(stream, {
            from: { last: LAST },
            onBatch: (events, place) => this.apply(feed, events, place),
            onTold: (notice) => this.told(feed, notice),
          });
    this.take();
  }

  filter(text: string): void {
    this.matches = compile(text);
    this.refresh();
  }

  /** Keep more rows, because somebody reads further up. */
  hold(held: boolean): void {
    this.feed.hold(held);
    this.refresh();
  }

  private apply(feed: Feed, events: readonly StreamEvent[], place: Place): void {
    feed.add(events, place, this.following?.snapshot().state === "replaying");
    this.refresh();
  }

  private told(feed: Feed, notice: Notice): void {
    const loss = lossOf(feed, notice);
    if (loss) feed.lose(loss, Date.now());
    if (loss?.kind === "reset" || (loss?.kind === "trimmed" && loss.maybe)) this.unsure += 1;
    this.refresh();
  }

  private take(): void {
    this.at = Date.now();
    clearTimeout(this.tick);
    // Nothing happens while there is no connection, but time passes.
    if (!this.socket.snapshot().welcomed) this.tick = setTimeout(this.refresh, TICK);
    this.client = this.socket.snapshot();
    this.metrics = this.socket.getConnectionMetrics();
    this.subscription = this.following?.snapshot() ?? null;
    this.rows = this.feed.shown(this.matches);
    this.size = this.feed.size;
    this.losses = this.feed.losses;
    this.dropped = this.feed.dropped;
    this.applied = this.feed.applied;
  }
}

/** What is gone, for the feed; a reset clears what was shown of the lane. */
function lossOf(feed: Feed, notice: Notice): Loss | null {
  switch (notice.kind) {
    case "trimmed":
    case "passed_over":
      return notice;
    case "reset":
      return { ...notice, upto: feed.clear(notice.lane) };
    default:
      // A refusal stands in the pill.
      return null;
  }
}
