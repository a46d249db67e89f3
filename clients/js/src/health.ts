/**
 * Health: judges from the times of the server's pings whether a connection is stale. Pure; times in milliseconds.
 *
 * A timer in a background tab, or after the machine slept, fires late. Pings that came meanwhile may still
 * wait behind it, so a late check judges by the time at which it should have run, and leaves the rest
 * to the next check.
 */

export interface HealthOptions {
  /** Without a ping for so long a connection is stale. */
  readonly pingTimeout?: number;
  /** Time between two checks. */
  readonly checkInterval?: number;
}

/** How much later than it was said a ping may come. */
const GRACE = 10_000;

export class Health {
  pingTimeout: number;
  readonly checkInterval: number;
  private lastPing: number | undefined;
  private heard: number | undefined;
  private checkAt: number | undefined;
  /** How long the server itself may take. */
  private patience = 0;

  constructor({ pingTimeout = 40_000, checkInterval = 10_000 }: HealthOptions = {}) {
    this.pingTimeout = pingTimeout;
    this.checkInterval = checkInterval;
  }

  /**
   * Begin to judge: only a server that said `welcome` is known to send pings. One that sends them seldom says how
   * far apart they are, and is given its time.
   */
  welcomed(now: number, interval = 0): void {
    this.heard = now;
    this.patience = interval > 0 ? interval + GRACE : 0;
    this.checkAt = now + this.checkInterval;
  }

  pinged(now: number): void {
    this.lastPing = now;
    if (this.heard !== undefined) this.heard = now;
  }

  /** Stop to judge: the connection is gone. */
  disconnected(): void {
    this.heard = undefined;
    this.checkAt = undefined;
  }

  /** Milliseconds since the last ping, or null if none ever came. */
  sinceLastPing(now: number): number | null {
    return this.lastPing === undefined ? null : now - this.lastPing;
  }

  nextDeadline(): number | undefined {
    return this.checkAt;
  }

  /** Check if it is time; true says that the connection is stale, and ends the judging. */
  handleTimeout(now: number): boolean {
    if (this.checkAt === undefined || this.heard === undefined || now < this.checkAt) return false;
    if (this.checkAt - this.heard >= Math.max(this.pingTimeout, this.patience)) {
      this.disconnected();
      return true;
    }
    this.checkAt = now + this.checkInterval;
    return false;
  }
}
