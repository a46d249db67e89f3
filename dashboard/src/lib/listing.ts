/**
 * When the page asks which streams there are. Pure; times in milliseconds.
 *
 * The server tells of new streams in a stream. Whoever hears that one asks when something appeared, and
 * seldom besides, for how much each holds; a token for certain streams alone doesn't hear it, and asks again
 * and again.
 */

/** Between two looks at the server, and while there is no event yet. */
const POLL = 5_000;
const POLL_EMPTY = 2_000;
/** Between two lists where new streams are told. */
const POLL_TOLD = 60_000;
/** Streams that appear within this time are listed at once. */
const TOGETHER = 100;

export class Listing {
  private listed = Number.NEGATIVE_INFINITY;
  private more = false;

  /** Whether to ask now; `told`: new streams are heard of. */
  due(told: boolean, now: number): boolean {
    return !told || this.more || now - this.listed >= POLL_TOLD;
  }

  /** It is being asked: what appears from now on may not be in the answer. */
  asked(now: number): void {
    this.more = false;
    this.listed = now;
  }

  /** What is known is out of date. */
  failed(): void {
    this.listed = Number.NEGATIVE_INFINITY;
  }

  /** Something appeared; whether that is the first since it was asked. */
  appeared(): boolean {
    const first = !this.more;
    this.more = true;
    return first;
  }

  /** How long to wait for the next look; `empty`: no stream has an event. */
  pause(told: boolean, empty: boolean): number {
    if (this.more) return TOGETHER;
    return empty && !told ? POLL_EMPTY : POLL;
  }
}
