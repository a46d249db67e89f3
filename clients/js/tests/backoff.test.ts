import { expect, it } from "vitest";
import { Backoff } from "../src/backoff.js";

it("doubles the widest delay up to the cap", () => {
  const backoff = new Backoff({ base: 1_000, cap: 5_000 });
  const widest = [0, 1, 2, 3, 4, 5_000].map((tries) => backoff.delay(tries, 0));
  expect(widest).toEqual([1_000, 2_000, 4_000, 5_000, 5_000, 5_000]);
});

it("spreads delays over the whole width, so that clients of one server don't come back together", () => {
  const backoff = new Backoff({ base: 1_000, floor: 50 });
  expect(backoff.delay(1, 0.25)).toBe(1_500);
  expect(backoff.delay(1, 0.75)).toBe(500);
});

it("never goes below the floor: a server that refuses at once isn't hammered", () => {
  expect(new Backoff({ floor: 50 }).delay(0, 0.999)).toBe(50);
});
