import { describe, expect, it } from "vitest";
import { addressOf } from "../src/lib/address.js";
import {
  clock,
  count,
  duration,
  hue,
  jsonTokens,
  moment,
  plural,
  range,
  when,
} from "../src/lib/format.js";
import { ownerOf, summaryOf } from "../src/lib/row.js";
import { demoOf, snippets } from "../src/lib/snippets.js";
import { one } from "./events.js";

describe("the address", () => {
  it("is found with and without a base path", () => {
    expect(addressOf("http://127.0.0.1:8765/?stream=a")).toEqual({
      origin: "http://127.0.0.1:8765",
      base: "/",
      url: "http://127.0.0.1:8765",
    });
    expect(addressOf("https://h.example/cast/")).toEqual({
      origin: "https://h.example",
      base: "/cast/",
      url: "https://h.example/cast",
    });
  });
});

describe("values in words", () => {
  it("groups digits, and says one and many", () => {
    expect(count(1_240)).toBe("1,240");
    expect(plural(1, "event")).toBe("1 event");
    expect(plural(2_000, "row")).toBe("2,000 rows");
    expect(range([3, 3])).toBe("3");
    expect(range([3, 4_000])).toBe("3–4,000");
  });

  it("says durations", () => {
    expect([-1, 59.9, 61, 3_600].map(duration)).toEqual(["0 s", "59 s", "1 min 1 s", "1 h 0 min"]);
  });

  it("says the day of what isn't from today", () => {
    const noon = new Date(2026, 10, 22, 12).getTime();
    const before = new Date(2026, 10, 21, 9, 5, 1).getTime();
    expect(moment(noon, noon)).toBe("12:00:00.000");
    expect(moment(before, noon)).toBe("11-21 09:05:01");
    expect(moment("soon", noon)).toBe("soon");
    expect(when(noon, noon)).toBe("12:00:00");
    expect(when(before, noon)).toBe("11-21 09:05:01");
  });

  it("says the time of day, and leaves what is none as it is", () => {
    expect(clock("2026-01-01T00:00:01.5Z")).toMatch(/^\d\d:\d\d:01\.500$/);
    expect(clock("2026-01-01T00:00:01Z", false)).toMatch(/^\d\d:\d\d:01$/);
    expect(clock("soon")).toBe("soon");
  });

  it("gives a name one hue, and near names others", () => {
    expect(hue("session-1")).toBe(hue("session-1"));
    const hues = Array.from({ length: 50 }, (_, index) => hue(`claude-code/session-${index}`));
    expect(hues.every((each) => each >= 0 && each < 360)).toBe(true);
    expect(new Set(hues.map((each) => Math.floor(each / 60))).size).toBe(6);
  });

  it("cuts JSON into tokens that give it back", () => {
    const json = JSON.stringify({ 'a"b\\': "x: 1, true", n: [-1.5e9, null, false] }, null, 2);
    const tokens = jsonTokens(json);
    expect(tokens.map(([, text]) => text).join("")).toBe(json);
    const kinds = tokens.filter(([kind]) => kind !== "plain").map(([kind]) => kind);
    expect(kinds).toEqual(["key", "text", "key", "number", "word", "word"]);
  });
});

describe("a row", () => {
  it("sums its data up without what the row shows anyway", () => {
    const tool_input = { command: "ls", description: "List" };
    expect(summaryOf({ session_id: "s", cwd: "/", tool_input, note: "two" })).toBe(
      "command: ls · description: List · note: two",
    );
    expect(summaryOf({ order: { id: 7, items: { a: 1 } }, empty: {}, paid: true })).toBe(
      'order.id: 7 · order.items: {"a":1} · paid: true',
    );
    const boxed = {
      subtype: "pre_tool",
      timestamp: "t",
      data: { tool_parameters: { command: "ls" } },
    };
    expect(summaryOf(boxed)).toBe("command: ls");
    expect(summaryOf("plain")).toBe("plain");
    expect(summaryOf([1, 2])).toBe("[1,2]");
    expect([null, undefined, {}, { cwd: "/x" }].map(summaryOf)).toEqual(["", "", "", ""]);
    expect(summaryOf({ long: "x".repeat(900) })).toHaveLength(300);
  });

  it("belongs to its session, else to its source", () => {
    expect(ownerOf(one(1, 1, { data: { session_id: "s1" } }))).toBe("s1");
    for (const data of [null, "s1", [], { session_id: 4 }, {}]) {
      expect(ownerOf(one(1, 1, { data }))).toBe("/t");
    }
  });
});

describe("the three ways", () => {
  it("have the real address and stream filled in", () => {
    const codes = snippets("http://h:9", "jobs", false).map(({ code }) => code);
    expect(codes[0]).toContain("http://h:9/v1/streams/jobs/events");
    expect(codes[1]).toContain('Publisher("http://h:9")');
    expect(codes[2]).toBe("export STEADCAST_URL=http://h:9\nsteadcast hooks install");
    expect(codes.join()).not.toContain("Bearer");
  });

  it("are as short as they can be at the default address, and show the token's place where one is set", () => {
    const codes = snippets("http://127.0.0.1:8765", "demo", true).map(({ code }) => code);
    expect(codes[2]).toBe("steadcast hooks install");
    expect(demoOf("http://127.0.0.1:8765")).toBe("steadcast demo");
    expect(demoOf("http://h:9")).toBe("steadcast demo --url http://h:9");
    expect(codes[0]).toContain('-H "Authorization: Bearer $STEADCAST_TOKEN"');
  });
});
