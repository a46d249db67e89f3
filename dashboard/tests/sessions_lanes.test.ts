import { describe, expect, it } from "vitest";
import { Sessions } from "../src/lib/sessions.js";
import {
  brushed,
  lanesOf,
  panned,
  type Range,
  ticksOf,
  timeAt,
  wholeOf,
  zoomed,
} from "../src/lib/sessions_lanes.js";
import { one } from "./events.js";
import { random as seeded } from "./random.js";

const START = Date.UTC(2026, 0, 1);
const SECONDS: Range = { from: START, to: START + 100_000 };

function call(id: string, from: number, to: number | null, more: object = {}) {
  const data = { session_id: "s", tool_name: "Bash", tool_use_id: id, ...more };
  const pre = one(0, from, { data: { ...data, hook_event_name: "PreToolUse" } });
  const post = one(0, to ?? 0, { data: { ...data, hook_event_name: "PostToolUse" } });
  return to === null ? [pre] : [pre, post];
}

function lane(...calls: ReturnType<typeof call>[]) {
  const sessions = new Sessions();
  sessions.apply(calls.flat());
  const [session] = sessions.list();
  if (!session) throw new Error("no session");
  const [first] = lanesOf(session, SECONDS, 1_000, START + 90_000);
  if (!first) throw new Error("no lane");
  return first;
}

describe("the lanes", () => {
  it("have a call where it was, ten pixels a second here", () => {
    const { boxes, rows } = lane(call("a", 10, 20));
    expect(boxes).toMatchObject([{ x: 100, width: 100, row: 0, calls: 1, failed: false }]);
    expect(rows).toBe(1);
  });

  it("have calls that ran side by side in rows", () => {
    const { boxes, rows } = lane(call("a", 10, 40), call("b", 20, 30), call("c", 50, 60));
    expect(boxes.map(({ row }) => row)).toEqual([0, 1, 0]);
    expect(rows).toBe(2);
  });

  it("have one box for many calls that can't be told apart", () => {
    const calls = Array.from({ length: 50 }, (_, n) => call(`c${n}`, 10 + n / 50, 10.01 + n / 50));
    const { boxes } = lane(...calls);
    expect(boxes.length).toBeLessThan(5);
    expect(boxes.reduce((sum, { calls: many }) => sum + many, 0)).toBe(50);
  });

  it("draw what still runs up to now", () => {
    expect(lane(call("a", 10, null)).boxes).toMatchObject([{ x: 100, width: 800 }]);
  });

  it("leave out what lies outside, and cut at the edges", () => {
    const { boxes } = lane(
      call("a", -20, -10),
      call("b", -5, 5),
      call("c", 95, 120),
      call("d", 130, 140),
    );
    expect(boxes.map(({ x, width }) => [x, width])).toEqual([
      [0, 50],
      [950, 50],
    ]);
  });
});

describe("the range", () => {
  it("never leaves the whole, and never gets empty, however it is moved", () => {
    const draw = seeded(7);
    const random = () => draw(10_000) / 10_000;
    let range = SECONDS;
    for (let n = 0; n < 2_000; n += 1) {
      const at = SECONDS.from + random() * 100_000;
      const next = [
        zoomed(range, SECONDS, 0.1 + random() * 3, Math.min(Math.max(at, range.from), range.to)),
        panned(range, SECONDS, random() * 4 - 2),
        brushed(at, SECONDS.from + random() * 100_000, SECONDS),
      ];
      range = next[n % 3] as Range;
      expect(range.from).toBeGreaterThanOrEqual(SECONDS.from - 1e-3);
      expect(range.to).toBeLessThanOrEqual(SECONDS.to + 1e-3);
      expect(range.to - range.from).toBeGreaterThanOrEqual(499.9);
    }
  });

  it("keeps the moment under the pointer where it is", () => {
    const closer = zoomed(SECONDS, SECONDS, 0.5, timeAt(SECONDS, 1_000, 250));
    expect(timeAt(closer, 1_000, 250)).toBeCloseTo(timeAt(SECONDS, 1_000, 250), 3);
  });

  it("has round ticks that stand apart", () => {
    for (const width of [200, 700, 2_400]) {
      const ticks = ticksOf(SECONDS, width);
      expect(ticks.length).toBeGreaterThan(0);
      for (const [index, { x, at }] of ticks.entries()) {
        expect(at % 1_000).toBe(0);
        expect(x - (ticks[index - 1]?.x ?? -90)).toBeGreaterThanOrEqual(89.9);
      }
    }
  });

  it("of a session that works reaches to now", () => {
    const sessions = new Sessions();
    sessions.apply(call("a", 0, 10).flat());
    const [session] = sessions.list();
    if (!session) throw new Error("no session");
    expect(wholeOf(session, START + 60_000, true).to).toBeGreaterThan(START + 60_000);
    expect(wholeOf(session, START + 60_000, false).to).toBeLessThan(START + 11_000);
  });
});
