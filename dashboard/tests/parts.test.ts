import { describe, expect, it } from "vitest";
import { diff, editsOf } from "../src/lib/diff.js";
import { facetsOf } from "../src/lib/facets.js";
import { NO_FILTER } from "../src/lib/query.js";
import { type Look, Story } from "../src/lib/story.js";
import { csv, eventCurl, ndjson } from "../src/lib/take_out.js";
import { namesOf, whoOf } from "../src/lib/who.js";
import { one } from "./events.js";
import { random } from "./random.js";

describe("a diff", () => {
  it.each([1, 2, 3])("gives both texts back (seed %i)", (seed) => {
    const below = random(seed);
    const text = () => Array.from({ length: below(30) }, () => String(below(6))).join("\n");
    for (let turn = 0; turn < 50; turn += 1) {
      const [before, after] = [text(), text()];
      const lines = diff(before, after);
      const side = (not: string) =>
        lines.filter(([change]) => change !== not).map(([, line]) => line);
      expect(side("in").join("\n")).toBe(before);
      expect(side("out").join("\n")).toBe(after);
    }
  });

  it("is short where little changed, and whole where much is compared", () => {
    const changed = diff("a\nb\nc", "a\nx\nc").filter(([change]) => change !== "same");
    expect(changed).toEqual([
      ["out", "b"],
      ["in", "x"],
    ]);
    const long = "x\n".repeat(2_000);
    expect(diff(long, long)).toHaveLength(4_000);
  });

  it("is read from every tool that edits", () => {
    const edits = [
      { old_string: "a", new_string: "b" },
      { old_string: "c", new_string: "" },
    ];
    expect(editsOf("MultiEdit", { file_path: "/f", edits })).toHaveLength(2);
    expect(editsOf("Write", { file_path: "/f", content: "a\nb\n" })[0]?.lines).toEqual([
      ["in", "a"],
      ["in", "b"],
    ]);
    expect(editsOf("Edit", null)[0]?.lines).toEqual([]);
    expect(editsOf("Bash", { command: "ls" })).toEqual([]);
  });
});

describe("the story", () => {
  const look = (at: number, state: Look["state"], replayed = 0, lost = 0): Look => ({
    at,
    state,
    replayed,
    duplicates: 0,
    gaps: 0,
    lost,
  });

  it("tells of a cut from its beginning until all is read", () => {
    const story = new Story();
    for (const each of [
      look(0, "live", 10),
      look(5, "offline", 10),
      look(6, "offline", 10),
      look(9, "replaying", 10),
      look(10, "replaying", 15),
      look(11, "live", 30, 2),
      look(12, "live", 31, 2),
    ])
      story.look(each);
    expect(story.cuts).toEqual([
      {
        began: 5,
        back: 9,
        caughtUp: 11,
        cause: "offline",
        replayed: 20,
        duplicates: 0,
        gaps: 0,
        lost: 2,
      },
    ]);
  });

  it("begins none while the page was never live, and remembers a few", () => {
    const story = new Story();
    story.look(look(0, "offline"));
    expect(story.cuts).toEqual([]);
    for (let at = 1; at < 100; at += 2) {
      story.look(look(at, "live"));
      story.look(look(at + 1, "stale"));
    }
    story.look(look(101, "live"));
    expect(story.cuts).toHaveLength(20);
    expect(story.cuts[0]).toMatchObject({ began: 100, caughtUp: 101, cause: "stale" });
  });

  it("is not over when the connection breaks again before all is read", () => {
    const story = new Story();
    for (const [at, state] of [
      [1, "live"],
      [2, "offline"],
      [3, "replaying"],
      [4, "offline"],
      [5, "replaying"],
      [6, "live"],
    ] as const)
      story.look(look(at, state));
    expect(story.cuts).toHaveLength(1);
    expect(story.cuts[0]).toMatchObject({ began: 2, back: 5, caughtUp: 6 });
  });
});

describe("what is taken out", () => {
  const odd = one(1, 1, { subject: "=1+1", data: { text: `it's "so",\n` } });

  it("is one line an event", () => {
    const [line] = ndjson([odd, odd]).trimEnd().split("\n");
    expect(JSON.parse(line ?? "")).toMatchObject({ id: "e1", lane: "normal", data: odd.data });
  });

  it("runs no formula in a spreadsheet, and keeps numbers", () => {
    expect(csv([odd])).toContain("'=1+1");
    expect(csv([one(1, 1, { subject: "-5" })])).toContain(",-5,");
  });

  it("is a command with every sign quoted", () => {
    expect(eventCurl(odd, "http://h", false)).toContain(`it'\\''s`);
  });

  it("names a token by its variable, where one is asked for", () => {
    const header = '-H "Authorization: Bearer $STEADCAST_TOKEN"';
    expect(eventCurl(odd, "http://h", true)).toContain(header);
    expect(eventCurl(odd, "http://h", false)).not.toContain("Authorization");
  });
});

describe("the choices of a filter", () => {
  it("are what the events have, and what is chosen", () => {
    const events = [
      one(1, 1, { data: { session_id: "s1", agent_id: "a" } }),
      one(2, 2, { type: "u" }),
    ];
    expect(facetsOf(events, { ...NO_FILTER, source: "/gone" })).toEqual({
      type: ["t", "u"],
      source: ["/gone", "/t"],
      session: ["s1"],
      agent: ["a"],
    });
  });
});

describe("who an event is of", () => {
  const data = { session_id: "128493ab-3e6f", cwd: "/home/dev/harbor" };
  const main = one(1, 1, { source: "claude-code/128493ab-3e6f", data });
  const helper = one(2, 2, { data: { ...data, agent_id: "a1b2c3d4", agent_type: "reviewer" } });

  it("is told by the session's folder and the agent, where there are any", () => {
    expect([main, helper, one(3, 3, { source: "/shop" })].map(whoOf)).toEqual([
      "harbor 128493",
      "harbor 128493 › reviewer",
      "/shop",
    ]);
    expect(whoOf(one(4, 4, { source: "/x", data: { session_id: "s" } }))).toBe("/x");
  });

  it("names the filter's choices, by what was heard last", () => {
    const moved = one(5, 5, { data: { ...data, cwd: "C:\\work\\quay" } });
    expect([...namesOf([main, helper, moved])]).toEqual([
      ["128493ab-3e6f", "quay 128493"],
      ["a1b2c3d4", "reviewer a1b2c3"],
    ]);
  });
});
