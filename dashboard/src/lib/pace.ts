/**
 * How much of its time a page draws. Pure; times in milliseconds.
 *
 * A browser lets frames go before messages: a page that draws in every frame, on a processor that takes long
 * for each, leaves its messages waiting and lags ever further behind. So each run rests for twice what it took.
 */

const REST = 2;
/** The longest rest: a page that lags must still be seen to move. */
const LONGEST = 400;

export class Pace {
  /** What is left to others before the next run. */
  rest = 0;
  private began: number | undefined;

  /** A run begins; false where the end of the one before wasn't seen yet, to which this one then belongs. */
  begins(now: number): boolean {
    if (this.began !== undefined) return false;
    this.began = now;
    return true;
  }

  /** What the run changed was drawn. */
  drawn(now: number): void {
    const took = this.began === undefined ? 0 : now - this.began;
    this.began = undefined;
    this.rest = Math.min(LONGEST, REST * took);
  }
}
