import { describe, expect, it } from "vitest";
import {
  Hues,
  KEPT,
  MOST_TYPES,
  OTHERS,
  Pulse,
  rateWords,
  seriesAt,
  stackedUp,
  WINDOWS,
  type Window,
} from "../src/lib/pulse.js";
import { random } from "./random.js";

const [MINUTE, FIVE, HOUR] = WINDOWS as [Window, Window, Window];
/** A whole hour of Unix time, in milliseconds. */
const NOON = Date.UTC(2026, 0, 1, 12);

describe("the pulse", () => {
  it("counts events by their second and type", () => {
    const pulse = new Pulse();
    for (const second of [1, 1, 2]) pulse.add("a", NOON + second * 1_000, NOON + 5_000);
    pulse.add("b", NOON + 2_500, NOON + 5_000);
    const { at, series, total, peak } = pulse.picture(MINUTE, NOON + 5_000, 8);
    const bar = at.indexOf(NOON / 1_000 + 1);
    expect(series.map(({ type, total: of }) => [type, of])).toEqual([
      ["a", 3],
      ["b", 1],
    ]);
    expect(series[0]?.rates.slice(bar, bar + 2)).toEqual([2, 1]);
    expect([total, peak]).toEqual([4, 2]);
  });

  it.each([MINUTE, FIVE, HOUR])("gives rates per second over $label", (window) => {
    const pulse = new Pulse();
    for (let second = 0; second < 3_600; second += 1) {
      pulse.add("a", NOON + second * 1_000, NOON + second * 1_000);
      pulse.add("a", NOON + second * 1_000, NOON + second * 1_000);
    }
    const { at, series, mean, peak } = pulse.picture(window, NOON + 3_599_000, 8);
    expect(at).toHaveLength(60);
    expect(new Set(series[0]?.rates)).toEqual(new Set([2]));
    expect([mean, peak]).toEqual([2, 2]);
  });

  it("forgets what is older than an hour, and counts what never fits", () => {
    const pulse = new Pulse();
    pulse.add("a", NOON, NOON);
    pulse.add("a", NOON - KEPT * 1_000, NOON);
    pulse.add("a", NOON + 5_000, NOON);
    pulse.add("a", Number.NaN, NOON);
    expect(pulse.outside).toBe(3);
    expect(pulse.picture(HOUR, NOON + 3_500_000, 8).total).toBe(1);
    expect(pulse.picture(HOUR, NOON + 3_600_000, 8).total).toBe(0);
    expect(pulse.picture(HOUR, NOON + 99 * 3_600_000, 8).total).toBe(0);
  });

  it("is bounded in types, and counts the rest together", () => {
    const pulse = new Pulse();
    for (let n = 0; n < 200; n += 1) pulse.add(`t${n}`, NOON, NOON);
    const { series, total } = pulse.picture(MINUTE, NOON, 1_000);
    expect(series).toHaveLength(MOST_TYPES + 1);
    expect(series.at(-1)).toMatchObject({ type: OTHERS, total: 200 - MOST_TYPES });
    expect(total).toBe(200);
  });

  it("makes room for new types once the old ones are an hour old", () => {
    const pulse = new Pulse();
    for (let n = 0; n < 200; n += 1) pulse.add(`t${n}`, NOON, NOON);
    pulse.add("new", NOON + 3_700_000, NOON + 3_700_000);
    expect(pulse.picture(MINUTE, NOON + 3_700_000, 8).series.map(({ type }) => type)).toEqual([
      "new",
    ]);
  });

  it("draws the largest types, and the others as one, and loses none", () => {
    const pulse = new Pulse();
    for (let n = 0; n < 20; n += 1) {
      for (let times = 0; times <= n; times += 1) pulse.add(`t${n}`, NOON, NOON);
    }
    const { series, total } = pulse.picture(MINUTE, NOON, 4);
    expect(series.map(({ type }) => type)).toEqual(["t19", "t18", "t17", OTHERS]);
    expect(total).toBe(210);
  });

  it("agrees with a list of the events, whatever comes", () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const draw = random(seed);
      const pulse = new Pulse();
      const events: number[] = [];
      let now = NOON;
      for (let n = 0; n < 400; n += 1) {
        now += draw(30_000);
        const time = now - draw(600_000);
        pulse.add("a", time, now);
        events.push(Math.floor(time / 1_000));
      }
      const head = Math.floor(now / 1_000);
      const first = Math.floor(head / 60) * 60 - 3_540;
      const expected = events.filter((second) => second >= first && second > head - KEPT).length;
      expect(pulse.picture(HOUR, now, 8).total, `seed ${seed}`).toBe(expected);
    }
  });
});

describe("hues", () => {
  it("stay, and are far from each other as long as there is room", () => {
    const hues = new Hues();
    const types = ["mail.sent", "stock.low", "order.paid", "order.placed", "order.shipped", "a"];
    const given = types.map((type) => hues.of(type));
    expect(types.map((type) => hues.of(type))).toEqual(given);
    for (const one of given) {
      for (const other of given) {
        const between = Math.abs(one - other);
        if (one !== other) expect(Math.min(between, 360 - between)).toBeGreaterThan(15);
      }
    }
    expect(new Set(given).size).toBe(types.length);
    for (let n = 0; n < 500; n += 1) expect(hues.of(`t${n}`)).toBeLessThan(360);
  });
});

describe("the chart", () => {
  const series = [
    { type: "a", total: 3, rates: [1, 2] },
    { type: "b", total: 3, rates: [3, 0] },
  ];

  it("stacks each type on those below, and finds the type at a height", () => {
    const stacks = stackedUp(series);
    expect(stacks).toEqual([
      [1, 2],
      [4, 2],
    ]);
    expect(seriesAt(stacks, 0, 0.5)).toBe(0);
    expect(seriesAt(stacks, 0, 2)).toBe(1);
    expect(seriesAt(stacks, 0, 5)).toBeNull();
    expect(seriesAt(stacks, 0, -1)).toBeNull();
  });

  it.each([
    [0, "0"],
    [0.001, "<0.01"],
    [0.25, "0.25"],
    [12.34, "12.3"],
    [5_123.4, "5,123"],
  ])("says %d as %s", (rate, words) => expect(rateWords(rate)).toBe(words));
});
