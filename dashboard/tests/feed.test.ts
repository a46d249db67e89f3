import { describe, expect, it } from "vitest";
import { Feed } from "../src/lib/feed.js";
import { compile } from "../src/lib/filter.js";
import { NO_FILTER } from "../src/lib/query.js";
import { event, names, offsets, place, taken } from "./events.js";
import { random } from "./random.js";

const NORMAL = place("normal");
const CRITICAL = place("critical");

describe("the feed's order", () => {
  it("puts live events at the end, whatever their time says", () => {
    const feed = new Feed();
    feed.add(taken([event(1, 10)], CRITICAL), false);
    feed.add(taken([event(1, 5)], NORMAL), false);
    expect(names(feed.shown(null))).toEqual(["critical:1", "normal:1"]);
  });

  it("merges the lanes by time while they are replayed", () => {
    const feed = new Feed();
    feed.add(taken([event(1, 3), event(2, 7)], CRITICAL), true);
    feed.add(taken([event(1, 1), event(2, 5), event(3, 9)], NORMAL), true);
    expect(names(feed.shown(null))).toEqual([
      "normal:1",
      "critical:1",
      "normal:2",
      "critical:2",
      "normal:3",
    ]);
  });

  it("never merges a replay into what was shown before it", () => {
    const feed = new Feed();
    feed.add(taken([event(1, 100)], CRITICAL), false);
    feed.add(taken([event(1, 1)], NORMAL), true);
    expect(names(feed.shown(null))).toEqual(["critical:1", "normal:1"]);
  });

  it("keeps a loss before all that came after it", () => {
    const feed = new Feed();
    feed.add(taken([event(1, 50)], CRITICAL), true);
    feed.lose({ kind: "trimmed", lane: "normal", lost: [1, 9], maybe: false }, 0);
    feed.add(taken([event(10, 1)], NORMAL), true);
    expect(names(feed.shown(null))).toEqual(["critical:1", "trimmed", "normal:10"]);
  });

  it("leaves an event without a readable time where it came", () => {
    const feed = new Feed();
    feed.add(taken([event(1, 9)], CRITICAL), true);
    feed.add(taken([event(1, 0, { time: "soon" })], NORMAL), true);
    expect(names(feed.shown(null))).toEqual(["critical:1", "normal:1"]);
  });

  it.each([1, 2, 3, 4, 5, 6, 7, 8])("keeps every lane's own order (seed %i)", (seed) => {
    const below = random(seed);
    const feed = new Feed({ rows: 40 });
    const heads = { critical: 0, normal: 0 };
    for (let step = 0; step < 300; step += 1) {
      const lane = below(3) === 0 ? "critical" : "normal";
      heads[lane] += 1;
      feed.add(taken([event(heads[lane], below(60))], place(lane)), below(2) === 0);
      if (below(40) === 0)
        feed.lose({ kind: "passed_over", lane, offset: heads[lane], id: "x" }, 0);
      feed.hold(below(5) === 0);
      for (const each of ["critical", "normal"] as const) {
        const seen = offsets(feed.shown(null), each);
        expect(seen).toEqual([...seen].sort((a, b) => a - b));
      }
    }
    expect(feed.applied).toBe(heads.critical + heads.normal);
  });
});

describe("the feed's bounds", () => {
  const many = (count: number, from = 1) =>
    Array.from({ length: count }, (_, index) => event(from + index, index));

  it("drops the oldest rows and counts them", () => {
    const feed = new Feed({ rows: 3 });
    feed.add(taken(many(10), NORMAL), false);
    expect(names(feed.shown(null))).toEqual(["normal:8", "normal:9", "normal:10"]);
    expect(feed.dropped).toBe(7);
    expect(feed.applied).toBe(10);
  });

  it("keeps more while somebody reads further up, and lets go afterwards", () => {
    const feed = new Feed({ rows: 3, heldRows: 6 });
    feed.add(taken(many(3), NORMAL), false);
    feed.hold(true);
    feed.add(taken(many(5, 4), NORMAL), false);
    expect(feed.size).toBe(6);
    expect(feed.dropped).toBe(2);
    feed.hold(false);
    expect(feed.size).toBe(3);
    expect(feed.dropped).toBe(5);
  });

  it("drops by size, but never the newest", () => {
    const feed = new Feed({ text: 100 });
    const large = { data: "x".repeat(60) };
    feed.add(taken([event(1, 1, large), event(2, 2, large)], NORMAL), false);
    expect(names(feed.shown(null))).toEqual(["normal:2"]);
    feed.add(taken([event(3, 3, { data: "x".repeat(500) })], NORMAL), false);
    expect(names(feed.shown(null))).toEqual(["normal:3"]);
    feed.add(taken([event(4, 4)], NORMAL), false);
    expect(names(feed.shown(null))).toEqual(["normal:4"]);
    expect(feed.dropped).toBe(3);
  });

  it("gives back the room of what a reset cleared", () => {
    const feed = new Feed({ text: 100 });
    feed.add(taken([event(7, 1, { data: "x".repeat(60) })], NORMAL), false);
    expect(feed.clear("normal")).toBe(7);
    feed.add(taken([event(1, 2, { data: "x".repeat(60) })], NORMAL), false);
    expect(feed.dropped).toBe(0);
  });
});

describe("a reset", () => {
  it("clears that lane alone and keeps the losses", () => {
    const feed = new Feed();
    feed.add(taken([event(1, 1)], CRITICAL), false);
    feed.lose({ kind: "trimmed", lane: "normal", lost: [1, 2], maybe: true }, 0);
    feed.add(taken([event(3, 2), event(4, 3)], NORMAL), false);
    expect(feed.clear("normal")).toBe(4);
    expect(names(feed.shown(null))).toEqual(["critical:1", "trimmed"]);
    expect(feed.clear("normal")).toBeNull();
  });
});

describe("the filter", () => {
  const feed = new Feed();
  feed.add(
    taken(
      [
        event(1, 1, { type: "tool.Bash", data: { command: "ls -la (all)" } }),
        event(2, 2, { type: "tool.Edit", subject: "main.py" }),
        event(3, 3, { source: "claude/ABC" }),
      ],
      NORMAL,
    ),
    false,
  );
  feed.add(taken([event(1, 4)], CRITICAL), false);
  feed.lose({ kind: "trimmed", lane: "normal", lost: [4, 5], maybe: false }, 0);
  const found = (text: string) => names(feed.shown(compile({ ...NO_FILTER, text })));

  it("finds words in type, source, subject, lane and data, in any case", () => {
    expect(found("bash")).toEqual(["normal:1", "trimmed"]);
    expect(found("MAIN.PY")).toEqual(["normal:2", "trimmed"]);
    expect(found("abc")).toEqual(["normal:3", "trimmed"]);
    expect(found("critical")).toEqual(["critical:1", "trimmed"]);
    expect(found("ls")).toEqual(["normal:1", "trimmed"]);
  });

  it("wants every word", () => {
    expect(found("tool main")).toEqual(["normal:2", "trimmed"]);
    expect(found("tool nothing")).toEqual(["trimmed"]);
  });

  it("takes signs as they are", () => {
    expect(found("(all)")).toEqual(["normal:1", "trimmed"]);
    expect(found("-la")).toEqual(["normal:1", "trimmed"]);
    expect(found(".*")).toEqual(["trimmed"]);
    for (const sign of "\\^$.*+?()[]{}|/-&~#,=!<>:")
      expect(() => compile({ ...NO_FILTER, text: sign })?.name).not.toThrow();
  });

  it("lets everything through when it is empty", () => {
    expect(compile({ ...NO_FILTER, text: "  " })).toBeNull();
  });
});
