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

export class Health {
  pingTimeout: number;
  readonly checkInterval: number;
  private lastPing: number | undefined;
  private heard: number | undefined;
  private checkAt: number | undefined;

  constructor({ pingTimeout = 40_000, checkInterval = 10_000 }: HealthOptions = {}) {
    this.pingTimeout = pingTimeout;
    this.checkInterval = checkInterval;
  }

  /** Begin to judge: only a server that said `welcome` is known to send pings. */
  welcomed(now: number): void {
    this.heard = now;
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
    if (this.checkAt - this.heard >= this.pingTimeout) {
      this.disconnected();
      return true;
    }
    this.checkAt = now + this.checkInterval;
    return false;
  }
}
