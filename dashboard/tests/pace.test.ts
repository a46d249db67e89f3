import { describe, expect, it } from "vitest";
import { Pace } from "../src/lib/pace.js";

/** Draw for a second whenever it may, each time for `took` milliseconds; gives how long it drew in all. */
function drawn(took: number): number {
  const pace = new Pace();
  let all = 0;
  for (let now = 0; now < 1_000; now += took + pace.rest) {
    pace.begins(now);
    pace.drawn(now + took);
    all += took;
  }
  return all;
}

describe("the pace", () => {
  it.each([2, 10, 40, 100])(
    "leaves two thirds of the time to others (a run takes %i ms)",
    (took) => {
      expect(drawn(took)).toBeGreaterThan(300);
      expect(drawn(took)).toBeLessThan(340 + took);
    },
  );

  it("draws twice a second at least between the longest runs", () => {
    const pace = new Pace();
    pace.begins(0);
    pace.drawn(9_000);
    expect(pace.rest).toBeLessThanOrEqual(500);
  });

  it("counts runs whose end wasn't seen as one", () => {
    const pace = new Pace();
    expect([pace.begins(0), pace.begins(30), pace.begins(60)]).toEqual([true, false, false]);
    pace.drawn(90);
    expect(pace.rest).toBe(180);
    expect(pace.begins(400)).toBe(true);
  });
});
