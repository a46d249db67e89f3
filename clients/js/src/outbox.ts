/**
 * Outbox: emissions that are sent until they are acknowledged. Pure; times in milliseconds.
 *
 * An emission is `queued` (waits for a connection or its turn), `sent` (waits for its ack) or `resting`
 * (waits for its next try). It leaves when it is acked or has failed, and after either it is never sent again.
 * A cut uses up no try: what was sent and not acked is queued anew, in its old place. What is cut off again and
 * again may be what ends the connection (a message that the server's transport doesn't take): it goes alone then,
 * so that nothing else is blamed, and is given up before it keeps everything else from going on.
 */

import type { Lane, Refusal } from "./wire.js";

/** Connections that ended while an emission waited for its ack: it goes alone from then on, and has failed. */
const ALONE_AFTER = 3;
const MAX_CUTS = 12;

/** An emission as it is accepted, and as it is kept over a reload. */
export interface Emission {
  readonly id: string;
  readonly event: string;
  readonly data: unknown;
  readonly priority: Lane;
  /** Tries after the failed first one. */
  readonly maxRetries: number;
  /** Milliseconds before each retry; the last one stands for all that follow. */
  readonly retryDelays: readonly number[];
}

export type OutboxEffect =
  /** `withId`: the server said welcome, so the id goes along as `{emission: id}`. */
  | {
      readonly kind: "send";
      readonly emission: Emission;
      readonly withId: boolean;
      readonly serial: number;
    }
  | { readonly kind: "delivered"; readonly emission: Emission; readonly answer: unknown }
  | {
      readonly kind: "failed";
      readonly emission: Emission;
      readonly reason: string;
      readonly refusal: Refusal | undefined;
    };

export interface OutboxOptions {
  /** Emissions that wait for a connection; a new one beyond that evicts the oldest normal one. */
  readonly maxQueueSize?: number;
  /** Emissions that are sent and not yet acked; more wait in the queue. */
  readonly maxPending?: number;
  /** Time between two emissions of a queue that is flushed. */
  readonly spacing?: number;
  /** A try that has no ack for so long has failed. */
  readonly ackTimeout?: number;
}

/** Conservation: `accepted = queued + pending + delivered + the sum of failed`. */
export interface OutboxCounts {
  readonly accepted: number;
  readonly delivered: number;
  readonly failed: { readonly [reason: string]: number };
  readonly retries: number;
  /** Acks of emissions that had left already. */
  readonly lateAcks: number;
}

type Phase = "queued" | "sent" | "resting";

interface Entry {
  readonly emission: Emission;
  readonly order: number;
  phase: Phase;
  failures: number;
  cuts: number;
  /** Names the try whose ack is awaited. */
  serial: number;
  due: number;
  refusal: Refusal | undefined;
}

export class Outbox {
  maxQueueSize: number;
  readonly maxPending: number;
  readonly spacing: number;
  readonly ackTimeout: number;
  private readonly entries = new Map<string, Entry>();
  /** The queued ones by priority, each in the order of acceptance. */
  private readonly queues: { readonly [lane in Lane]: Entry[] } = { critical: [], normal: [] };
  private online = false;
  private withIds = false;
  /** The emission that was last sent alone. */
  private alone: Entry | undefined;
  private flushAt = 0;
  private orders = 0;
  private oldest = 0;
  private serials = 0;
  private accepted = 0;
  private delivered = 0;
  private retries = 0;
  private lateAcks = 0;
  private readonly failures = new Map<string, number>();
  private effects: OutboxEffect[] = [];

  constructor(options: OutboxOptions = {}) {
    this.maxQueueSize = options.maxQueueSize ?? 100;
    this.maxPending = options.maxPending ?? 1_000;
    this.spacing = options.spacing ?? 100;
    this.ackTimeout = options.ackTimeout ?? 15_000;
  }

  get queued(): number {
    return this.queues.critical.length + this.queues.normal.length;
  }

  /** Sent or resting before a retry: not yet acked, not in the queue. */
  get pending(): number {
    return this.entries.size - this.queued;
  }

  /** All that is here. */
  get emissions(): readonly Emission[] {
    return [...this.entries.values()].map(({ emission }) => emission);
  }

  get counts(): OutboxCounts {
    return {
      accepted: this.accepted,
      delivered: this.delivered,
      failed: Object.fromEntries(this.failures),
      retries: this.retries,
      lateAcks: this.lateAcks,
    };
  }

  nextDeadline(): number | undefined {
    let next = this.canFlush() ? this.flushAt : undefined;
    for (const entry of this.entries.values()) {
      if (entry.phase !== "queued" && (next === undefined || entry.due < next)) next = entry.due;
    }
    return next;
  }

  /** Take an emission; one with an id that is already here is the same and is not taken twice. */
  accept(now: number, emission: Emission): OutboxEffect[] {
    if (this.entries.has(emission.id)) return [];
    const entry = this.enter(emission, this.orders++);
    const free = this.queued === 0 && this.pending <= this.maxPending && !this.isAlone();
    if (this.online && free) this.send(now, entry);
    else this.enqueue(entry);
    return this.drain();
  }

  /** Take what was kept over a reload: it is older than everything that was accepted since. */
  restore(now: number, emissions: readonly Emission[]): OutboxEffect[] {
    const fresh = emissions.filter(({ id }) => !this.entries.has(id));
    for (const [index, emission] of fresh.entries()) {
      const entry = this.enter(emission, this.oldest - fresh.length + index);
      this.requeue(entry);
    }
    this.oldest -= fresh.length;
    return this.handleTimeout(now);
  }

  /** A connection is ready; `withIds` says whether the server said welcome. The queue is flushed. */
  connected(now: number, withIds: boolean): OutboxEffect[] {
    this.online = true;
    this.withIds = withIds;
    for (const entry of [...this.entries.values()]) {
      if (entry.cuts >= MAX_CUTS) this.fail(entry, "max_cuts");
    }
    return this.handleTimeout(now);
  }

  /**
   * The connection is gone: what it carried without an ack is queued again. Where this side has ended it of its
   * own will (`willed`), nothing that it carried is to blame.
   */
  disconnected(willed = false): void {
    this.online = false;
    for (const entry of this.entries.values()) {
      if (entry.phase !== "sent") continue;
      if (!willed) entry.cuts += 1;
      this.requeue(entry);
    }
  }

  /** Take an ack. Any try's success counts; a refusal only if it answers the try that is under way. */
  acked(
    now: number,
    id: string,
    serial: number,
    answer: unknown,
    refusal?: Refusal,
  ): OutboxEffect[] {
    const entry = this.entries.get(id);
    if (!entry) {
      this.lateAcks += 1;
      return [];
    }
    if (!refusal) this.deliver(entry, answer);
    else if (entry.phase === "sent" && entry.serial === serial) this.refuse(now, entry, refusal);
    this.flush(now);
    return this.drain();
  }

  handleTimeout(now: number): OutboxEffect[] {
    for (const entry of [...this.entries.values()]) {
      if (entry.phase === "queued" || entry.due > now) continue;
      if (entry.phase === "sent") this.miss(now, entry, 0);
      else if (this.online) this.send(now, entry);
      else this.requeue(entry);
    }
    this.flush(now);
    return this.drain();
  }

  /** Fail whatever is still here. */
  close(reason: string): OutboxEffect[] {
    for (const entry of [...this.entries.values()]) this.fail(entry, reason);
    return this.drain();
  }

  private enter(emission: Emission, order: number): Entry {
    const entry: Entry = {
      emission,
      order,
      phase: "queued",
      failures: 0,
      cuts: 0,
      serial: 0,
      due: 0,
      refusal: undefined,
    };
    this.accepted += 1;
    this.entries.set(emission.id, entry);
    return entry;
  }

  private canFlush(): boolean {
    const next = this.queues.critical[0] ?? this.queues.normal[0];
    if (!this.online || !next || this.isAlone()) return false;
    if (next.cuts < ALONE_AFTER) return this.pending < this.maxPending;
    return ![...this.entries.values()].some(({ phase }) => phase === "sent");
  }

  private isAlone(): boolean {
    const { alone } = this;
    return alone?.phase === "sent" && this.entries.has(alone.emission.id);
  }

  private flush(now: number): void {
    if (!this.canFlush() || now < this.flushAt) return;
    const entry = this.queues.critical.shift() ?? this.queues.normal.shift();
    if (!entry) return;
    this.flushAt = now + this.spacing;
    this.send(now, entry);
  }

  private send(now: number, entry: Entry): void {
    entry.phase = "sent";
    entry.due = now + this.ackTimeout;
    entry.serial = ++this.serials;
    if (entry.cuts >= ALONE_AFTER) this.alone = entry;
    if (entry.failures > 0) this.retries += 1;
    const { emission, serial } = entry;
    this.effects.push({ kind: "send", emission, withId: this.withIds, serial });
  }

  /** Only a new emission evicts; a cut alone never does. */
  private enqueue(entry: Entry): void {
    this.queues[entry.emission.priority].push(entry);
    if (this.queued <= this.maxQueueSize) return;
    const victim = this.queues.normal[0] ?? this.queues.critical[0];
    if (victim) this.fail(victim, "queue_full");
  }

  private requeue(entry: Entry): void {
    entry.phase = "queued";
    const queue = this.queues[entry.emission.priority];
    const place = queue.findIndex((other) => other.order > entry.order);
    queue.splice(place < 0 ? queue.length : place, 0, entry);
  }

  private refuse(now: number, entry: Entry, refusal: Refusal): void {
    entry.refusal = refusal;
    if (refusal.temporary) this.miss(now, entry, (refusal.retryAfter ?? 0) * 1_000);
    else this.fail(entry, refusal.code);
  }

  private miss(now: number, entry: Entry, atLeast: number): void {
    const { maxRetries, retryDelays } = entry.emission;
    if (entry.failures >= maxRetries) {
      this.fail(entry, "max_retries");
      return;
    }
    const delay = retryDelays[Math.min(entry.failures, retryDelays.length - 1)] ?? 0;
    entry.failures += 1;
    entry.phase = "resting";
    entry.due = now + Math.max(delay, atLeast);
  }

  private deliver(entry: Entry, answer: unknown): void {
    this.remove(entry);
    this.delivered += 1;
    this.effects.push({ kind: "delivered", emission: entry.emission, answer });
  }

  private fail(entry: Entry, reason: string): void {
    this.remove(entry);
    this.failures.set(reason, (this.failures.get(reason) ?? 0) + 1);
    this.effects.push({ kind: "failed", emission: entry.emission, reason, refusal: entry.refusal });
  }

  private remove(entry: Entry): void {
    this.entries.delete(entry.emission.id);
    const queue = this.queues[entry.emission.priority];
    const place = queue.indexOf(entry);
    if (place >= 0) queue.splice(place, 1);
  }

  private drain(): OutboxEffect[] {
    const { effects } = this;
    this.effects = [];
    return effects;
  }
}
