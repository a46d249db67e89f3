import { describe, expect, it } from "vitest";
import { Unread } from "../src/lib/log.js";
import { ndjson } from "../src/lib/take_out.js";
import { gather, type Step, type Taken, walk } from "../src/lib/walk.js";
import { logOf, reader, seconds } from "./logs.js";
import { random } from "./random.js";

async function steps(walked: AsyncIterable<Step>): Promise<Step[]> {
  const all: Step[] = [];
  for await (const step of walked) all.push(step);
  return all;
}

describe("the walk through a log", () => {
  it.each([1, 2, 3])("meets every event once and in order (seed %i)", async (seed) => {
    const log = logOf(3_000, random(seed));
    const all = await steps(walk(reader(log), log.heads, null));
    const met = all.flatMap(({ matching }) => seconds(matching));
    expect(met).toEqual(Array.from({ length: 3_000 }, (_, second) => second));
    // Both lanes' pages, and what the steps leave of one is not asked for again.
    expect(log.asked).toBeLessThan(2 * (3_000 / 256 + 4));
  });

  it("leaves out what doesn't match, and what came after it began", async () => {
    const log = logOf(900, random(4));
    const until = { critical: 0, normal: log.heads.normal };
    const all = await steps(walk(reader(log), until, ({ id }) => Number(id) % 2 === 0));
    const even = log.lanes.normal.filter(({ id }) => Number(id) % 2 === 0);
    expect(all.flatMap(({ matching }) => matching.map(({ id }) => id))).toEqual(
      even.map(({ id }) => id),
    );
    expect(all.reduce((sum, { read }) => sum + read, 0)).toBe(log.lanes.normal.length);
  });

  it("says when retention was faster", async () => {
    const log = logOf(3_000, random(5));
    const met: Step[] = [];
    for await (const step of walk(reader(log), log.heads, null)) {
      met.push(step);
      if (met.length !== 2) continue;
      log.trimmed.normal = log.lanes.normal[1_900]?.offset ?? 0;
      log.lanes.normal = log.lanes.normal.slice(1_901);
    }
    const overtaken = met.map((step) => step.overtaken);
    expect(overtaken).toContain(true);
    expect([overtaken.at(0), overtaken.at(-1)]).toEqual([false, false]);
  });

  it("becomes a file, however long, and says how far it is", async () => {
    const log = logOf(2_000, random(6));
    const told: Taken[] = [];
    const text = (events: Parameters<typeof ndjson>[0]) =>
      ndjson(events).replaceAll("}\n", `${" ".repeat(1_500)}}\n`);
    const file = await gather(walk(reader(log), log.heads, null), "", text, (taken) => {
      told.push(taken);
    });
    const lines = (await file.text()).trimEnd().split("\n");
    expect(lines.map((line) => Number(JSON.parse(line).id))).toEqual(
      Array.from({ length: 2_000 }, (_, second) => second),
    );
    expect(told.at(-1)).toEqual({ read: 2_000, taken: 2_000, overtaken: false, rounded: 0 });
    expect(told.length).toBeGreaterThan(5);
  });

  it("counts the events whose numbers a browser has rounded", async () => {
    const log = logOf(20, random(7));
    const [event] = await steps(walk(reader(log), log.heads, null)).then(
      ([step]) => step?.matching ?? [],
    );
    if (!event) throw new Error("no event was read");
    const data = [
      JSON.parse('{"ids":[9007199254740993]}'),
      JSON.parse(`{"beyond":1${"0".repeat(400)}}`),
      { n: [2 ** 53 - 1, 0.1, "9007199254740993", null] },
    ];
    const matching = data.map((each) => ({ ...event, data: each }));
    async function* step(): AsyncGenerator<Step> {
      yield { read: 2, matching, overtaken: false };
    }
    const told: Taken[] = [];
    await gather(step(), "", ndjson, (taken) => told.push(taken));
    expect(told.map(({ rounded }) => rounded)).toEqual([2]);
  });

  it("ends where the log can't be read", async () => {
    const log = logOf(900, random(7));
    const walked = walk(reader(log), log.heads, null);
    await walked.next();
    log.away = true;
    await expect(walked.next()).rejects.toThrow(Unread);
  });
});
