import { describe, expect, it } from "vitest";
import { compile, matching } from "../src/lib/filter.js";
import { NO_FILTER } from "../src/lib/query.js";
import { Tail } from "../src/lib/tail.js";
import { event, names, offsets, place, taken } from "./events.js";
import { random } from "./random.js";

const NORMAL = place("normal");
const CRITICAL = place("critical");

describe("the tail's order", () => {
  it("puts live events at the end, whatever their time says", () => {
    const tail = new Tail();
    tail.add(taken([event(1, 10)], CRITICAL), false);
    tail.add(taken([event(1, 5)], NORMAL), false);
    expect(names(tail.shown())).toEqual(["critical:1", "normal:1"]);
  });

  it("merges the lanes by time while they are replayed", () => {
    const tail = new Tail();
    tail.add(taken([event(1, 3), event(2, 7)], CRITICAL), true);
    tail.add(taken([event(1, 1), event(2, 5), event(3, 9)], NORMAL), true);
    expect(names(tail.shown())).toEqual([
      "normal:1",
      "critical:1",
      "normal:2",
      "critical:2",
      "normal:3",
    ]);
  });

  it("never merges a replay into what was shown before it", () => {
    const tail = new Tail();
    tail.add(taken([event(1, 100)], CRITICAL), false);
    tail.add(taken([event(1, 1)], NORMAL), true);
    expect(names(tail.shown())).toEqual(["critical:1", "normal:1"]);
  });

  it("keeps a loss before all that came after it", () => {
    const tail = new Tail();
    tail.add(taken([event(1, 50)], CRITICAL), true);
    tail.lose({ kind: "trimmed", lane: "normal", lost: [1, 9], maybe: false }, 0);
    tail.add(taken([event(10, 1)], NORMAL), true);
    expect(names(tail.shown())).toEqual(["critical:1", "trimmed", "normal:10"]);
  });

  it("leaves an event without a readable time where it came", () => {
    const tail = new Tail();
    tail.add(taken([event(1, 9)], CRITICAL), true);
    tail.add(taken([event(1, 0, { time: "soon" })], NORMAL), true);
    expect(names(tail.shown())).toEqual(["critical:1", "normal:1"]);
  });

  it.each([1, 2, 3, 4, 5, 6, 7, 8])("keeps every lane's own order (seed %i)", (seed) => {
    const below = random(seed);
    const tail = new Tail({ rows: 40 });
    const heads = { critical: 0, normal: 0 };
    for (let step = 0; step < 300; step += 1) {
      const lane = below(3) === 0 ? "critical" : "normal";
      heads[lane] += 1;
      tail.add(taken([event(heads[lane], below(60))], place(lane)), below(2) === 0);
      if (below(40) === 0)
        tail.lose({ kind: "passed_over", lane, offset: heads[lane], id: "x" }, 0);
      for (const each of ["critical", "normal"] as const) {
        const seen = offsets(tail.shown(), each);
        expect(seen).toEqual([...seen].sort((a, b) => a - b));
      }
    }
    expect(tail.applied).toBe(heads.critical + heads.normal);
  });
});

describe("the tail's bounds", () => {
  const many = (count: number, from = 1) =>
    Array.from({ length: count }, (_, index) => event(from + index, index));

  it("drops the oldest rows and counts them", () => {
    const tail = new Tail({ rows: 3 });
    tail.add(taken(many(10), NORMAL), false);
    expect(names(tail.shown())).toEqual(["normal:8", "normal:9", "normal:10"]);
    expect(tail.dropped).toBe(7);
    expect(tail.applied).toBe(10);
  });

  it("drops by size, but never the newest", () => {
    const tail = new Tail({ weight: 140 });
    const large = { data: "x".repeat(60) };
    tail.add(taken([event(1, 1, large), event(2, 2, large)], NORMAL), false);
    expect(names(tail.shown())).toEqual(["normal:2"]);
    tail.add(taken([event(3, 3, { data: "x".repeat(500) })], NORMAL), false);
    expect(names(tail.shown())).toEqual(["normal:3"]);
    tail.add(taken([event(4, 4)], NORMAL), false);
    expect(names(tail.shown())).toEqual(["normal:4"]);
    expect(tail.dropped).toBe(3);
  });

  it("gives back the room of what a reset cleared", () => {
    const tail = new Tail({ weight: 140 });
    tail.add(taken([event(7, 1, { data: "x".repeat(60) })], NORMAL), false);
    expect(tail.clear("normal")).toBe(7);
    tail.add(taken([event(1, 2, { data: "x".repeat(60) })], NORMAL), false);
    expect(tail.dropped).toBe(0);
  });
});

describe("a reset", () => {
  it("clears that lane alone and keeps the losses", () => {
    const tail = new Tail();
    tail.add(taken([event(1, 1)], CRITICAL), false);
    tail.lose({ kind: "trimmed", lane: "normal", lost: [1, 2], maybe: true }, 0);
    tail.add(taken([event(3, 2), event(4, 3)], NORMAL), false);
    expect(tail.clear("normal")).toBe(4);
    expect(names(tail.shown())).toEqual(["critical:1", "trimmed"]);
    expect(tail.clear("normal")).toBeNull();
  });
});

describe("the filter", () => {
  const tail = new Tail();
  tail.add(
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
  tail.add(taken([event(1, 4)], CRITICAL), false);
  tail.lose({ kind: "trimmed", lane: "normal", lost: [4, 5], maybe: false }, 0);
  const found = (text: string) => names(matching(tail.shown(), compile({ ...NO_FILTER, text })));

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

  it("finds a text with quotes and backslashes as it reads, and a field as it stands in JSON", () => {
    const told = compile({ ...NO_FILTER, text: String.raw`"fix" C:\temp\x "command":` });
    const data = { command: String.raw`git -C C:\temp\x commit -m "fix"` };
    const [said, not] = taken([event(1, 1, { data }), event(2, 2)], NORMAL);
    expect(said && not && [told?.(said), told?.(not)]).toEqual([true, false]);
  });

  it("lets everything through when it is empty", () => {
    expect(compile({ ...NO_FILTER, text: "  " })).toBeNull();
  });
});
