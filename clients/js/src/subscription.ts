/** The shell of one subscription: runs the handlers that the receiver asks for, and can be watched. */

import { Receiver } from "./cursor.js";
import type { AckPayload, Counts, Effect, Progress, SubscribePayload, Told } from "./effects.js";
import { Observed } from "./listeners.js";
import { CursorKeeper, type CursorStore, LOCK_WAIT } from "./persist.js";
import {
  type Batch,
  type Cursors,
  type From,
  type Heads,
  type Lane,
  parseLaneAnswers,
  refusalOf,
  type StreamEvent,
} from "./wire.js";

/** Where the events that a handler gets come from. */
export interface Place {
  readonly stream: string;
  readonly lane: Lane;
  readonly epoch: string;
}

/** What the user of a subscription must learn. */
export type Notice =
  /** `passed_over` carries the error that the handler threw last, `refused` the server's words. */
  | (Told & { readonly error?: unknown; readonly message?: string })
  /** The cursor isn't kept over a reload, though it was asked for. */
  | { readonly kind: "not_kept"; readonly error: unknown };

export interface SubscribeOptions {
  /** Where a lane without a cursor begins; default `"end"`. */
  readonly from?: From;
  /** Cursors that you kept yourself. */
  readonly cursors?: Cursors;
  /**
   * Keep the cursors over a reload of this tab: true, a name where one page subscribes to the same stream in
   * several ways, or a store of your own.
   */
  readonly persist?: boolean | string | CursorStore;
  /** Apply one event. The cursor moves when it has returned, or its promise has resolved. */
  readonly onEvent?: (event: StreamEvent, place: Place) => unknown;
  /**
   * Apply consecutive events at once, all or none. If it fails the events are handed over one by one, so
   * that only the one that can't be applied is passed over.
   */
  readonly onBatch?: (events: readonly StreamEvent[], place: Place) => unknown;
  readonly onTold?: (notice: Notice) => void;
}

export type SubscriptionState = "replaying" | "live" | "offline" | "stale" | "refused" | "closed";

export interface SubscriptionSnapshot {
  readonly stream: string;
  readonly state: SubscriptionState;
  /** While replaying: events applied since the answer, of how many; null where nobody can tell. */
  readonly progress: Progress | null;
  readonly cursors: Cursors;
  readonly counts: Readonly<Counts>;
}

export interface SubscriptionHost {
  /** How the connection is, where it isn't there. */
  away(): "offline" | "stale" | undefined;
  now(): number;
  random(): number;
  report(error: unknown): void;
  /** Something changed; the timer may have to be set anew. */
  changed(): void;
  send(event: string, payload: unknown, answered?: (answer: unknown) => void): void;
  /** The user wants no more of it. */
  left(subscription: Subscription): void;
}

const NONE: readonly StreamEvent[] = [];
/** Milliseconds for what is in hand at the end: who subscribes next waits about twice as long for the store. */
const LAST_WAIT = LOCK_WAIT / 2;

export class Subscription {
  /** Resolves once the kept cursors are read and the subscription takes part. */
  readonly ready: Promise<void>;
  private readonly receiver: Receiver;
  private readonly observed: Observed<SubscriptionSnapshot>;
  private keeper: CursorKeeper | undefined;
  private started = false;
  private leaving: ReturnType<typeof setTimeout> | undefined;
  /** Per lane the events that are handed over one by one, after their batch failed. */
  private readonly singles = { critical: NONE, normal: NONE };
  /** Why the server refused the last subscribe, in its words. */
  private refusal = "";
  private readonly errors: { [lane in Lane]?: unknown } = {};
  /** The receiver's, found once a change: the client looks at those of all its subscriptions at each of theirs. */
  private due: number | undefined;

  constructor(
    readonly stream: string,
    private readonly options: SubscribeOptions,
    private readonly host: SubscriptionHost,
    store?: Promise<CursorStore>,
  ) {
    this.receiver = new Receiver(stream, options);
    this.observed = new Observed(() => this.take(), host.report);
    this.started = store === undefined;
    this.ready = store ? this.start(store) : Promise.resolve();
  }

  /** The same object until something changed. */
  snapshot(): SubscriptionSnapshot {
    return this.observed.snapshot();
  }

  /** Call back after changes, at most once a microtask; returns what ends it. */
  onChange(watcher: () => void): () => void {
    return this.observed.onChange(watcher);
  }

  /**
   * End the subscription; no handler is called again. One that is running isn't interrupted, and what it applies
   * within half a second is kept.
   */
  unsubscribe(): void {
    if (this.receiver.link === "closed") return;
    this.receiver.close();
    if (this.started) this.leave();
    this.host.left(this);
    this.changed();
  }

  // For the client

  /** @internal */
  connected(now: number): void {
    if (this.started && this.receiver.link === "offline") this.run(this.receiver.connected(now));
  }

  /** @internal */
  disconnected(): void {
    this.receiver.disconnected();
    this.changed();
  }

  /** @internal */
  received(now: number, batch: Batch): void {
    this.run(this.receiver.received(now, batch));
  }

  /** @internal */
  pinged(now: number, heads: Heads): void {
    this.run(this.receiver.pinged(now, heads));
  }

  /** @internal */
  nextDeadline(): number | undefined {
    return this.due;
  }

  /** @internal */
  handleTimeout(now: number): void {
    if (this.due !== undefined && this.due <= now) this.run(this.receiver.handleTimeout(now));
  }

  /** @internal */
  changed(): void {
    this.due = this.receiver.nextDeadline();
    this.observed.changed();
    this.host.changed();
  }

  private async start(store: Promise<CursorStore>): Promise<void> {
    try {
      const opened = await store;
      this.keeper = new CursorKeeper(opened, (error) => this.notKept(error));
      this.receiver.restore(await opened.load());
    } catch (error) {
      this.notKept(error);
    }
    this.started = true;
    if (this.receiver.link === "closed") this.leave();
    else if (!this.host.away()) this.connected(this.host.now());
  }

  private notKept(error: unknown): void {
    this.tell({ kind: "not_kept", error });
  }

  private tell(notice: Notice): void {
    try {
      this.options.onTold?.(notice);
    } catch (error) {
      this.host.report(error);
    }
  }

  private run(effects: readonly Effect[]): void {
    const queue = [...effects];
    for (let effect = queue.shift(); effect; effect = queue.shift()) {
      queue.push(...this.obey(effect));
    }
    this.changed();
  }

  private obey(effect: Effect): readonly Effect[] {
    switch (effect.kind) {
      case "subscribe":
        this.ask(effect.payload);
        return [];
      case "ack":
        this.ack(effect.payload);
        return [];
      case "told":
        this.told(effect.told);
        return [];
      case "deliver":
        return this.deliver(effect.lane, effect.epoch);
    }
  }

  private ask(payload: SubscribePayload): void {
    this.host.send("subscribe", payload, (answer) => this.answered(answer));
  }

  private ack(payload: AckPayload): void {
    this.host.send("ack", payload);
  }

  private answered(answer: unknown): void {
    const { receiver, host } = this;
    const refusal = refusalOf(answer);
    const lanes = (answer as { lanes?: unknown } | null)?.lanes;
    const answers = refusal ? undefined : parseLaneAnswers(lanes);
    this.refusal = refusal?.message ?? "";
    if (refusal) this.run(receiver.refused(host.now(), refusal, host.random()));
    else if (answers) this.run(receiver.answered(host.now(), answers));
    // Anything else is no answer: the receiver asks again when it has waited long enough.
    if (answers) this.save();
  }

  private told(told: Told): void {
    if (told.kind === "passed_over") this.tell({ ...told, error: this.errors[told.lane] });
    else this.tell(told.kind === "refused" ? { ...told, message: this.refusal } : told);
  }

  // The handlers

  private deliver(lane: Lane, epoch: string): readonly Effect[] {
    const slice = this.slice(lane);
    this.receiver.take(lane, slice.length);
    try {
      const result = this.handle(slice, { stream: this.stream, lane, epoch });
      if (!isPromise(result)) return this.handled(lane, slice);
      result.then(
        () => this.run(this.handled(lane, slice)),
        (error: unknown) => this.run(this.failed(lane, epoch, slice, error)),
      );
      return [];
    } catch (error) {
      return this.failed(lane, epoch, slice, error);
    }
  }

  private slice(lane: Lane): readonly StreamEvent[] {
    const turn = this.receiver.turn(lane);
    const [first] = turn;
    const single = !this.options.onBatch || (first && this.singles[lane].includes(first));
    return single ? turn.slice(0, 1) : [...turn];
  }

  private handle(slice: readonly StreamEvent[], place: Place): unknown {
    const { onBatch, onEvent } = this.options;
    if (onBatch) return onBatch(slice, place);
    const [event] = slice;
    return event && onEvent?.(event, place);
  }

  /** Report the events of a slice one by one; the receiver asks for the next in between, which is in the slice. */
  private handled(lane: Lane, slice: readonly StreamEvent[]): readonly Effect[] {
    const effects: Effect[] = [];
    for (const index of slice.keys()) {
      const next = slice[index + 1];
      const asked = this.receiver.handled(this.host.now(), lane);
      effects.push(...asked.filter((each) => each.kind !== "deliver" || each.event !== next));
    }
    this.save();
    return effects;
  }

  private failed(
    lane: Lane,
    epoch: string,
    slice: readonly StreamEvent[],
    error: unknown,
  ): readonly Effect[] {
    this.errors[lane] = error;
    if (slice.length > 1 && !this.receiver.isCutOff(lane)) {
      this.singles[lane] = slice;
      return this.deliver(lane, epoch);
    }
    const effects = this.receiver.failed(this.host.now(), lane);
    this.save();
    return effects;
  }

  private save(): void {
    this.keeper?.save(this.receiver.cursors);
    if (this.receiver.link === "closed") this.leave();
  }

  /** Give the store back, once what is in hand was applied and saved, or takes too long. */
  private leave(): void {
    const { keeper } = this;
    if (!keeper) return;
    if (this.receiver.pending > 0) {
      this.leaving ??= setTimeout(() => void keeper.release(), LAST_WAIT);
      return;
    }
    clearTimeout(this.leaving);
    void keeper.release();
  }

  // What can be seen

  private take(): SubscriptionSnapshot {
    const { receiver, stream } = this;
    const state = this.state();
    return {
      stream,
      state,
      progress: state === "replaying" ? receiver.progress : null,
      cursors: receiver.cursors,
      counts: { ...receiver.counts },
    };
  }

  private state(): SubscriptionState {
    const { link } = this.receiver;
    if (link === "closed" || link === "refused") return link;
    return this.host.away() ?? (this.receiver.replaying ? "replaying" : "live");
  }
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null)?.then === "function";
}
