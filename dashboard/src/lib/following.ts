/** One subscription of the page, for all who want to hear of its stream. */

import type { Notice, Place, SocketClient, StreamEvent, Subscription } from "@steadcast/client";
import type { Loss, Watcher } from "./contract.js";
import { Feed } from "./feed.js";
import { seen } from "./seen.js";

/** A page keeps nothing over a reload: it begins with so many events of each lane. */
export const LAST = 200;

export class Following {
  readonly feed = new Feed();
  /** Times that something may be gone, and nobody can tell how much: a log replaced, a range unknown. */
  unsure = 0;
  readonly subscription: Subscription;
  private readonly watchers = new Set<Watcher>();

  /** `changed` is called after whatever happened; it may wait for the next frame. */
  constructor(
    socket: SocketClient,
    readonly stream: string,
    private readonly changed: () => void,
  ) {
    this.subscription = socket.subscribe(stream, {
      from: { last: LAST },
      onBatch: (events, place) => this.apply(events, place),
      onTold: (notice) => this.told(notice),
    });
  }

  get idle(): boolean {
    return this.watchers.size === 0;
  }

  /** Hear of what this page still has, then of what comes; returns what ends it. */
  watch(watcher: Watcher): () => void {
    const known = this.feed.events();
    if (known.length > 0) watcher.events(known, true);
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  private get replaying(): boolean {
    return this.subscription.snapshot().state === "replaying";
  }

  private apply(events: readonly StreamEvent[], place: Place): void {
    const now = Date.now();
    const taken = events.map((event) => seen(event, place, now));
    const { replaying } = this;
    this.feed.add(taken, replaying);
    this.tell((watcher) => watcher.events(taken, replaying));
  }

  private told(notice: Notice): void {
    const loss = lossOf(this.feed, notice);
    if (loss) this.feed.lose(loss, Date.now());
    if (loss?.kind === "reset" || (loss?.kind === "trimmed" && loss.maybe)) this.unsure += 1;
    this.tell((watcher) => loss && watcher.lost?.(loss));
  }

  /** A view that fails must not make delivery count the event as failed. */
  private tell(say: (watcher: Watcher) => void): void {
    for (const watcher of this.watchers) {
      try {
        say(watcher);
      } catch (error) {
        reportError(error);
      }
    }
    this.changed();
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
