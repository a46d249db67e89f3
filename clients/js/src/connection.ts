/**
 * Connection: decides when the one socket is opened and shut. Pure; times in milliseconds.
 *
 * Every way in which a connection ends leads to a new one after a backoff, the server's own disconnect
 * included; only a permanent refusal and `close` end it.
 */

import { Backoff } from "./backoff.js";
import { IllegalInput } from "./errors.js";
import type { Refusal } from "./wire.js";

export type ConnectionState = "idle" | "connecting" | "online" | "waiting" | "refused" | "closed";
type Input = "open" | "accepted" | "lost" | "refused" | "due" | "cycle" | "close";

/** What the shell must do; `open` means a socket with a fresh token. */
export type ConnectionEffect = "open" | "shut";

const TRANSITIONS: {
  readonly [state in ConnectionState]: { readonly [input in Input]?: ConnectionState };
} = {
  idle: { open: "connecting", close: "closed" },
  connecting: { accepted: "online", lost: "waiting", refused: "refused", close: "closed" },
  online: { lost: "waiting", cycle: "connecting", refused: "refused", close: "closed" },
  waiting: { due: "connecting", open: "connecting", close: "closed" },
  refused: { open: "connecting", close: "closed" },
  closed: { open: "connecting", close: "closed" },
};

export interface ConnectionOptions {
  readonly backoff?: Backoff;
  /** A connect that wasn't accepted for so long has failed. */
  readonly connectTimeout?: number;
  /** A connection that lasted so long was a good one: the backoff begins anew. */
  readonly steadyAfter?: number;
  /** Two connects that were asked for by `wake` are at least so far apart. */
  readonly wakeSpacing?: number;
}

export class Connection {
  state: ConnectionState = "idle";
  /** Whether the connection was given up because it was silent, until it ends one way or the other. */
  stale = false;
  /** Why the server refuses, in the state `refused`. */
  refusal: Refusal | undefined;
  disconnects = 0;
  private readonly backoff: Backoff;
  private readonly connectTimeout: number;
  private readonly steadyAfter: number;
  private readonly wakeSpacing: number;
  private tries = 0;
  private due: number | undefined;
  private floor = 0;
  private goawayAt: number | undefined;
  private openedAt = 0;
  private onlineSince: number | undefined;
  private downSince: number | undefined;

  constructor(options: ConnectionOptions = {}) {
    this.backoff = options.backoff ?? new Backoff();
    this.connectTimeout = options.connectTimeout ?? 20_000;
    this.steadyAfter = options.steadyAfter ?? 5_000;
    this.wakeSpacing = options.wakeSpacing ?? 1_000;
  }

  /** Milliseconds since the connect was accepted, 0 while there is no connection. */
  uptime(now: number): number {
    return this.onlineSince === undefined ? 0 : now - this.onlineSince;
  }

  /** Milliseconds without a connection, counted from its end or from the first `open`. */
  disconnectedFor(now: number): number {
    return this.downSince === undefined ? 0 : now - this.downSince;
  }

  nextDeadline(): number | undefined {
    if (this.state === "online") return this.goawayAt;
    return this.due;
  }

  open(now: number): ConnectionEffect[] {
    if (this.state === "connecting" || this.state === "online") return [];
    this.move("open");
    this.refusal = undefined;
    this.tries = 0;
    this.downSince ??= now;
    return this.begin(now);
  }

  accepted(now: number): void {
    this.move("accepted");
    this.due = undefined;
    this.goawayAt = undefined;
    this.stale = false;
    this.onlineSince = now;
    this.downSince = undefined;
  }

  /** The connection ended, or a connect failed; `retryAfter` (milliseconds) is the server's wish. */
  lost(now: number, jitter: number, retryAfter = 0): ConnectionEffect[] {
    this.move("lost");
    this.end(now);
    const wait = Math.max(this.backoff.delay(this.tries, jitter), retryAfter);
    this.tries += 1;
    this.floor = Math.max(now + retryAfter, this.goawayAt ?? 0);
    this.due = this.goawayAt === undefined ? now + wait : Math.max(now, this.goawayAt);
    this.goawayAt = undefined;
    this.stale = false;
    return ["shut"];
  }

  /** The server refuses for good: it isn't asked again before `open`. */
  refused(now: number, refusal: Refusal): ConnectionEffect[] {
    this.move("refused");
    this.end(now);
    this.refusal = refusal;
    this.due = undefined;
    return ["shut"];
  }

  /** Give the connection up and open another: it is stale, or its token has expired. */
  cycle(now: number, jitter: number, stale: boolean): ConnectionEffect[] {
    if (this.state !== "online") return [];
    if (this.uptime(now) < this.steadyAfter) return this.lost(now, jitter);
    this.move("cycle");
    this.end(now);
    this.stale = stale;
    return ["shut", ...this.begin(now)];
  }

  /** The server asks to leave: at a time of our own between `min` and `max` (milliseconds from now). */
  goaway(now: number, min: number, max: number, jitter: number): void {
    if (this.state === "online") this.goawayAt = now + min + (max - min) * jitter;
  }

  /** The network or the tab is back: don't wait for the backoff. What the server asked for still holds. */
  wake(now: number): ConnectionEffect[] {
    if (this.state !== "waiting" || this.due === undefined) return [];
    this.due = Math.min(this.due, Math.max(now, this.floor, this.openedAt + this.wakeSpacing));
    return this.handleTimeout(now, 1);
  }

  close(now: number): ConnectionEffect[] {
    this.move("close");
    this.end(now);
    this.due = undefined;
    this.goawayAt = undefined;
    return ["shut"];
  }

  handleTimeout(now: number, jitter: number): ConnectionEffect[] {
    const deadline = this.nextDeadline();
    if (deadline === undefined || now < deadline) return [];
    if (this.state === "connecting") return this.lost(now, jitter);
    if (this.state === "waiting") {
      this.move("due");
      return this.begin(now);
    }
    this.move("cycle");
    this.end(now);
    return ["shut", ...this.begin(now)];
  }

  private begin(now: number): ConnectionEffect[] {
    this.openedAt = now;
    this.due = now + this.connectTimeout;
    this.goawayAt = undefined;
    return ["open"];
  }

  private end(now: number): void {
    if (this.onlineSince === undefined) return;
    if (now - this.onlineSince >= this.steadyAfter) this.tries = 0;
    this.disconnects += 1;
    this.onlineSince = undefined;
    this.downSince = now;
  }

  private move(input: Input): void {
    const target = TRANSITIONS[this.state][input];
    if (target === undefined) throw new IllegalInput(`${input} while ${this.state}`);
    this.state = target;
  }
}
