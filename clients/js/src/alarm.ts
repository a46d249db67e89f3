/** One timer for all deadlines. */

/** The longest delay that every timer takes. */
const LONGEST = 2 ** 31 - 1;

export class Alarm {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private asked = false;

  /** The clock tells milliseconds; `ring` is called when the earliest deadline has come, or shortly before a far one. */
  constructor(
    private readonly clock: { now(): number },
    private readonly ring: () => void,
  ) {}

  /** Ask for the deadlines once for all that changes in one go, and take them: there may be thousands. */
  later(deadlines: () => readonly (number | undefined)[]): void {
    if (this.asked) return;
    this.asked = true;
    queueMicrotask(() => {
      this.asked = false;
      this.set(deadlines());
    });
  }

  /** Take these deadlines for those before; without any, nothing rings. */
  set(deadlines: readonly (number | undefined)[]): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const times = deadlines.filter((time) => time !== undefined);
    if (times.length === 0) return;
    const delay = Math.max(0, Math.min(...times) - this.clock.now());
    // Rounded up: a timer that fires a fraction early would find nothing due and spin.
    this.timer = setTimeout(this.ring, Math.min(Math.ceil(delay), LONGEST));
  }
}
