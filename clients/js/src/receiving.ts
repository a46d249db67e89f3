/** One lane at the receiver: the numbers and buffers that the receiver's rule works on. */

import type { Batch, Cursor, Lane, LaneAnswer, StreamEvent } from "./wire.js";

/** More waiting events than this in a lane are dropped: the chain shows the gap, and it is repaired. */
export const INBOX_EVENTS = 4_096;

export class ReceivingLane {
  /** Bounded by `INBOX_EVENTS`, see `fullFor`. */
  readonly inbox: Batch[] = [];
  inboxEvents = 0;
  /** The batch in hand; its first `taken` events are with the handler. */
  turn: StreamEvent[] = [];
  turnUpto = 0;
  taken = 0;
  attempt = 0;
  /** A reset that waits until nothing of the old log is in hand. */
  reset: LaneAnswer | undefined;
  /** Whether the lane was reset on this connection. */
  wasReset = false;
  unacked = 0;
  unackedBytes = 0;
  ackDue: number | undefined;
  replayUpto = 0;
  tail: number | undefined;
  tailDue: number | undefined;
  lastArrival = Number.NEGATIVE_INFINITY;

  constructor(
    readonly lane: Lane,
    public cursor: Cursor | undefined,
  ) {}

  /** The offset of the cursor, 0 where there is none yet. */
  get offset(): number {
    return this.cursor?.[1] ?? 0;
  }

  /** The epoch that is followed: that of a reset, as soon as it is known. */
  get epoch(): string | undefined {
    return (this.reset?.cursor ?? this.cursor)?.[0];
  }

  /**
   * Whether a reset answers an older subscribe: this connection has led into that log already. A log isn't
   * exchanged under an epoch while its server runs: a second reset into it is no news.
   */
  isLate(answer: LaneAnswer): boolean {
    return answer.status === "reset" && this.wasReset && this.cursor?.[0] === answer.cursor[0];
  }

  /** The offset up to which everything is applied or in hand. */
  get reach(): number {
    return this.turn.length > 0 ? this.turnUpto : this.offset;
  }

  get busy(): boolean {
    return this.turn.length > 0 || this.inbox.length > 0;
  }

  /** How many events wait or are being handled. */
  get pending(): number {
    return this.turn.length + this.inboxEvents;
  }

  /** Whether a batch finds the inbox full; one without events takes a place like any other. */
  fullFor(batch: Batch): boolean {
    const places = Math.max(this.inboxEvents + batch.events.length, this.inbox.length + 1);
    return this.inbox.length > 0 && places > INBOX_EVENTS;
  }

  /** Drop what waits; gives how many events that were. */
  cutInbox(): number {
    const dropped = this.inboxEvents;
    this.inbox.length = 0;
    this.inboxEvents = 0;
    return dropped;
  }

  /** Drop what waits and the batch in hand, but for what its handler has already; gives how many events. */
  cutTurn(): number {
    const dropped = this.cutInbox() + Math.max(0, this.turn.length - this.taken);
    this.turn.length = Math.min(this.turn.length, this.taken);
    this.turnUpto = this.turn.at(-1)?.offset ?? this.turnUpto;
    return dropped;
  }
}
