/** Exponential backoff with full jitter, as a pure function of the try and a random number. */

export interface BackoffOptions {
  /** The widest first delay, milliseconds. */
  readonly base?: number;
  /** The widest delay ever, milliseconds. */
  readonly cap?: number;
  /** No delay is shorter, so that a server that refuses at once isn't hammered; milliseconds. */
  readonly floor?: number;
}

export class Backoff {
  readonly base: number;
  readonly cap: number;
  readonly floor: number;

  constructor({ base = 1_000, cap = 15_000, floor = 50 }: BackoffOptions = {}) {
    this.base = base;
    this.cap = cap;
    this.floor = floor;
  }

  /**
   * Give the delay before the next try in milliseconds.
   * @param tries how many tries have failed in a row before this delay, from 0
   * @param jitter a random number in [0, 1): what it takes away of the widest delay
   */
  delay(tries: number, jitter: number): number {
    const widest = Math.min(this.cap, this.base * 2 ** Math.min(tries, 30));
    return Math.max(this.floor, widest * (1 - jitter));
  }
}
