import { describe, expect, it } from "vitest";
import { Listing } from "../src/lib/listing.js";

describe("the list of streams", () => {
  it("is asked for again and again by whoever isn't told of new ones", () => {
    const listing = new Listing();
    for (const now of [0, 5_000, 10_000]) {
      expect(listing.due(false, now)).toBe(true);
      listing.asked(now);
    }
    expect(listing.pause(false, false)).toBe(5_000);
    expect(listing.pause(false, true)).toBe(2_000);
  });

  it("is asked for once a minute by whoever is told", () => {
    const listing = new Listing();
    expect(listing.due(true, 0)).toBe(true);
    listing.asked(0);
    expect([5_000, 59_999].map((now) => listing.due(true, now))).toEqual([false, false]);
    expect(listing.due(true, 60_000)).toBe(true);
    expect(listing.pause(true, true)).toBe(5_000);
  });

  it("is asked for soon when something appears, once for all that appear together", () => {
    const listing = new Listing();
    listing.asked(0);
    expect([listing.appeared(), listing.appeared(), listing.appeared()]).toEqual([
      true,
      false,
      false,
    ]);
    expect(listing.pause(true, false)).toBe(100);
    expect(listing.due(true, 100)).toBe(true);
    listing.asked(100);
    expect(listing.due(true, 5_100)).toBe(false);
    expect(listing.appeared()).toBe(true);
  });

  it("is asked for at the next look where there was no answer", () => {
    const listing = new Listing();
    listing.asked(0);
    listing.failed();
    expect(listing.pause(true, false)).toBe(5_000);
    expect(listing.due(true, 5_000)).toBe(true);
  });
});
