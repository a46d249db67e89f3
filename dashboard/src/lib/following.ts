/** One subscription of the page, for all who want to hear of its stream. */

import type { Notice, Place, SocketClient, StreamEvent, Subscription } from "@steadcast/client";
import type { Loss, SeenEvent, Watcher } from "./contract.js";
import { seen } from "./seen.js";
import { Tail } from "./tail.js";

/** A page keeps nothing over a reload: it begins with so many events of each lane. */
export const LAST = 200;
/** Events that wait for their frame: twice as many at most, more let go of the older half. */
const MOST_UNSHOWN = 4_000;

export class Following {
  readonly tail = new Tail();
  /** Times that something may be gone, and nobody can tell how much: a log replaced, a range unknown. */
  unsure = 0;
  readonly subscription: Subscription;
  /** Why the server refuses the stream, in its words. */
  refusal = "";
  private readonly watchers = new Set<Watcher>();
  /** Milliseconds from publishing to arriving, lately; null before the first live event that tells. */
  delay: number | null = null;
  /** Events that came since the last frame. */
  private unshown: SeenEvent[] = [];

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
    const known = this.tail.events();
    if (known.length > 0) watcher.events(known, true);
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  /** Say that a frame has all that came so far; `at` in milliseconds of Unix time. */
  show(at: number): void {
    for (const event of this.unshown) event.shownAt = at;
    this.unshown = [];
  }

  private get replaying(): boolean {
    return this.subscription.snapshot().state === "replaying";
  }

  private apply(events: readonly StreamEvent[], place: Place): void {
    const now = Date.now();
    const taken = events.map((event) => seen(event, place, now));
    const { replaying } = this;
    this.tail.add(taken, replaying);
    // A tab in the background draws seldom: what left the tail by then was never shown.
    this.unshown.push(...taken);
    if (this.unshown.length > 2 * MOST_UNSHOWN) this.unshown.splice(0, MOST_UNSHOWN);
    if (!replaying) this.measure(taken.at(-1));
    this.tell((watcher) => watcher.events(taken, replaying));
  }

  /** Smooth the delay; a publisher whose clock is ahead of this one's tells nothing. */
  private measure(event: SeenEvent | undefined): void {
    const delay = event ? event.arrivedAt - event.publishedAt : Number.NaN;
    if (delay >= 0)
      this.delay = this.delay === null ? delay : this.delay + (delay - this.delay) / 8;
  }

  private told(notice: Notice): void {
    if (notice.kind === "refused") this.refusal = notice.message ?? "";
    const loss = lossOf(this.tail, notice);
    if (loss) this.tail.lose(loss, Date.now());
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
function lossOf(tail: Tail, notice: Notice): Loss | null {
  switch (notice.kind) {
    case "trimmed":
    case "passed_over":
      return notice;
    case "reset":
      return { ...notice, upto: tail.clear(notice.lane) };
    default:
      // A refusal stands in the pill.
      return null;
  }
}
