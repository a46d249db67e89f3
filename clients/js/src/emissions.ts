/** The shell of the outbox: sends, calls back, and keeps the queue over a reload where asked. */

import { EmissionFailed, InvalidRequest } from "./errors.js";
import { delaysOf, numberFrom } from "./options.js";
import { type Emission, Outbox, type OutboxEffect, type OutboxOptions } from "./outbox.js";
import type { QueueStore } from "./persist.js";
import { isLane, type Lane, refusalOf } from "./wire.js";

export interface EmitOptions {
  /** Tries after the failed first one; default `maxRetryAttempts`. */
  readonly maxRetries?: number;
  /** Milliseconds before each retry; default `retryDelays`. */
  readonly retryDelays?: readonly number[];
  /** `critical` overtakes in the queue, and is evicted last. */
  readonly priority?: Lane;
  /** The server acknowledged it, with this answer. */
  readonly onSuccess?: (answer: unknown) => void;
  /** It was given up and is never sent again: `queue_full`, `max_retries`, `max_cuts`, `unsendable`, `closed` or the server's code. */
  readonly onFailure?: (reason: string) => void;
}

/** What an emission is that says nothing of retries. */
export interface Retries {
  readonly maxRetryAttempts: number;
  readonly retryDelays: readonly number[];
}

/** Give the emission that is asked for; raises `InvalidRequest` for options that can't be. */
export function emissionOf(
  what: Pick<Emission, "id" | "event" | "data">,
  options: EmitOptions,
  { maxRetryAttempts, retryDelays }: Retries,
): Emission {
  const {
    priority = "normal",
    maxRetries = maxRetryAttempts,
    retryDelays: delays = retryDelays,
  } = options;
  if (!isLane(priority)) throw new InvalidRequest('priority must be "critical" or "normal"');
  return {
    ...what,
    priority,
    maxRetries: numberFrom(0, maxRetries, "maxRetries"),
    retryDelays: delaysOf(delays, "retryDelays"),
  };
}

interface Waiting {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: EmissionFailed) => void;
}

export interface EmissionsHost {
  now(): number;
  /** Send on the socket that is open; `answered` is called with the server's acknowledgement. */
  send(event: string, args: readonly unknown[], answered: (answer: unknown) => void): void;
  /** Something changed; the timer may have to be set anew. */
  changed(): void;
  report(error: unknown): void;
}

export class Emissions {
  readonly outbox: Outbox;
  /** Writes to the kept queue that failed: those emissions would not outlive a reload. */
  keepFailures = 0;
  private readonly waiting = new Map<string, Waiting>();
  private store: QueueStore | undefined;
  private closed = false;

  constructor(
    private readonly host: EmissionsHost,
    options: OutboxOptions,
  ) {
    this.outbox = new Outbox(options);
  }

  /** Take over a kept queue: what it holds goes first, what is here already is kept too. */
  async keepIn(store: QueueStore): Promise<void> {
    const kept = await store.load();
    // Closed meanwhile: the next client of this tab takes the queue over.
    if (this.closed) return store.release();
    this.store = store;
    for (const emission of this.outbox.emissions) this.keep(emission);
    this.run(this.outbox.restore(this.host.now(), kept));
  }

  emit(emission: Emission, { onSuccess, onFailure }: EmitOptions): Promise<unknown> {
    const promise = new Promise<unknown>((resolve, reject) => {
      this.waiting.set(emission.id, { resolve, reject });
    });
    // Handled here as well, so that a caller who listens by callback alone has no unhandled rejection.
    promise.then(
      (answer) => this.call(() => onSuccess?.(answer)),
      (error: EmissionFailed) => {
        if (!error.kept) this.call(() => onFailure?.(error.reason));
      },
    );
    const effects = this.outbox.accept(this.host.now(), emission);
    this.keep(emission);
    this.run(effects);
    return promise;
  }

  run(effects: readonly OutboxEffect[]): void {
    for (const effect of effects) {
      if (effect.kind === "send") this.send(effect);
      else this.settle(effect);
    }
    this.host.changed();
  }

  /** Stop for good. A kept queue stays kept: promises reject with `kept`, `onFailure` isn't called. */
  close(): void {
    this.closed = true;
    if (this.store) this.forsake(this.store);
    else this.run(this.outbox.close("closed"));
  }

  private send({ emission, withId, serial }: OutboxEffect & { kind: "send" }): void {
    const { id, event, data } = emission;
    const bare = data === undefined ? [] : [data];
    const args = withId ? [data, { emission: id }] : bare;
    const answered = (answer: unknown, refusal = refusalOf(answer)) =>
      this.run(this.outbox.acked(this.host.now(), id, serial, answer, refusal));
    try {
      this.host.send(event, args, (answer) => answered(answer));
    } catch (error) {
      // No JSON, or a name that Socket.IO keeps for itself: no try will go better.
      answered(undefined, { code: "unsendable", temporary: false, message: String(error) });
    }
  }

  private settle(effect: Exclude<OutboxEffect, { kind: "send" }>): void {
    const { id } = effect.emission;
    this.store?.remove(id).catch(() => this.failedToKeep());
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    if (effect.kind === "delivered") waiting?.resolve(effect.answer);
    else waiting?.reject(new EmissionFailed(effect.reason, effect.refusal));
  }

  private keep(emission: Emission): void {
    this.store?.put(emission).catch(() => this.failedToKeep());
  }

  private failedToKeep(): void {
    this.keepFailures += 1;
    this.host.changed();
  }

  private forsake(store: QueueStore): void {
    for (const { reject } of this.waiting.values()) {
      reject(new EmissionFailed("closed", undefined, true));
    }
    this.waiting.clear();
    this.outbox.disconnected();
    this.store = undefined;
    store.release();
  }

  private call(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.host.report(error);
    }
  }
}
