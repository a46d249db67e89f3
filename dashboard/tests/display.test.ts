import { describe, expect, it } from "vitest";
import type { SeenEvent } from "../src/lib/contract.js";
import { Display } from "../src/lib/display.js";
import { LogReader, merge, Unread } from "../src/lib/log.js";
import { Tail } from "../src/lib/tail.js";
import { event, names, offsets, one, place, taken } from "./events.js";
import { logOf, reader, seconds } from "./logs.js";
import { random } from "./random.js";

describe("the log", () => {
  it.each([1, 2, 3, 4])("is read back and forth whole and in order (seed %i)", async (seed) => {
    const log = logOf(1_500, random(seed));
    const back: number[] = [];
    let at = log.heads;
    for (let ended = false; !ended; ) {
      const found = await reader(log).older(at);
      back.unshift(...seconds(found.events));
      ({ at, ended } = found);
    }
    expect(back).toEqual(Array.from({ length: 1_500 }, (_, second) => second));
    const forth: number[] = [];
    at = { critical: 0, normal: 0 };
    for (let ended = false; !ended; ) {
      const found = await reader(log).newer(at, log.heads);
      forth.push(...seconds(found.events));
      ({ at, ended } = found);
    }
    expect(forth).toEqual(back);
  });

  it("ends where retention has passed", async () => {
    const log = logOf(600, random(5));
    log.trimmed = { critical: log.lanes.critical[60]?.offset ?? 0, normal: 0 };
    log.trimmed.normal = log.lanes.normal[100]?.offset ?? 0;
    for (const lane of ["critical", "normal"] as const) {
      log.lanes[lane] = log.lanes[lane].filter(({ offset }) => offset > log.trimmed[lane]);
    }
    const one = reader(log);
    let at = log.heads;
    let count = 0;
    for (let ended = false; !ended; ) {
      const found = await one.older(at);
      count += found.events.length;
      ({ at, ended } = found);
    }
    expect(count).toBe(log.lanes.critical.length + log.lanes.normal.length);
  });

  it("finds a time in few questions", async () => {
    const log = logOf(1_000, random(6));
    const at = await reader(log).find(Date.UTC(2026, 0, 1) + 400_000, log.heads);
    expect(log.asked).toBeLessThan(45);
    const { events } = await reader(log).newer(at, log.heads);
    expect(seconds(events)[0]).toBe(400);
  });

  it("says why it can't be read", async () => {
    const away = async () =>
      ({ ok: false, status: 0, code: "", detail: "away", temporary: true, problem: null }) as const;
    const broken = new LogReader(away, "s", "e1", new AbortController().signal);
    await expect(broken.older({ critical: 5, normal: 5 })).rejects.toThrow(new Unread("away"));
  });

  it.each(["<html>Please log in.</html>", null, {}, { events: null, upto: 1, head: 1 }])(
    "says that what was answered is no page: %j",
    async (body) => {
      const other = async () => ({ ok: true, status: 200, body }) as const;
      const log = new LogReader(other, "s", "e1", new AbortController().signal);
      await expect(log.older({ critical: 5, normal: 5 })).rejects.toThrow(Unread);
    },
  );
});

describe("the display", () => {
  const applied = () => ({ critical: 100, normal: 100 });
  const many = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, index) => one(from + index, from + index));
  const page = (from: number, to: number, low: number) => ({
    events: many(from, to),
    at: { critical: 0, normal: low },
    ended: false,
  });

  it("keeps what leaves the tail while somebody reads, until that is too much", () => {
    const tail = new Tail({ rows: 10 });
    const display = new Display(tail, applied, { rows: 30 });
    display.hold();
    tail.add(many(1, 25), false);
    expect(display.rows()).toHaveLength(25);
    expect(display.attached).toBe(true);
    tail.add(many(26, 60), false);
    expect(display.attached).toBe(false);
    const before = display.rows().length;
    tail.add(many(61, 90), false);
    expect(display.rows()).toHaveLength(before);
    expect(names(display.rows().slice(0, 2))).toEqual(["normal:1", "normal:2"]);
    display.follow();
    expect(names(display.rows())[0]).toBe("normal:81");
  });

  it("lets go at the other end of where it is read, and finds back to the tail", () => {
    const tail = new Tail({ rows: 10 });
    const display = new Display(tail, applied, { rows: 20 });
    tail.add(many(91, 100), false);
    display.hold();
    expect(display.before).toEqual({ critical: 100, normal: 90 });
    display.prepend(page(76, 90, 75), null);
    expect(display.dropNewest()).toBe(true);
    expect(display.attached).toBe(false);
    expect(names(display.rows())).toEqual(names(many(76, 95).map((each) => ({ ...row(each) }))));
    expect(display.behind.normal).toBe(95);
    expect(display.before.normal).toBe(75);
    const rest = { events: [], at: { critical: 100, normal: 95 }, ended: true };
    display.append(rest, null);
    expect(display.attached).toBe(true);
  });

  it("reads a lane whose tail reaches back further along with the other one, and shows nothing twice", () => {
    const tail = new Tail();
    const display = new Display(tail, () => ({ critical: 3, normal: 100 }));
    const critical = taken([event(1, 5), event(2, 15), event(3, 25)], place("critical"));
    tail.add(critical, true);
    tail.add(many(96, 100), true);
    display.hold();
    display.stand({ critical: 0, normal: 0 });
    const first = { events: merge(critical.slice(0, 2), many(1, 20)), ended: false };
    display.append({ ...first, at: { critical: 2, normal: 20 } }, null);
    expect(display.attached).toBe(false);
    expect(offsets(display.rows(), "critical")).toEqual([1, 2]);
    const second = { events: merge(critical.slice(2), many(21, 97)), ended: false };
    display.append({ ...second, at: { critical: 3, normal: 97 } }, null);
    expect(display.attached).toBe(true);
    expect(offsets(display.rows(), "critical")).toEqual([1, 2, 3]);
    expect(offsets(display.rows(), "normal")).toEqual(
      Array.from({ length: 100 }, (_, at) => at + 1),
    );
  });

  it("weaves a lane that reaches back further into the other one", () => {
    const tail = new Tail();
    const display = new Display(tail, applied);
    tail.add(taken([event(1, 5), event(2, 15), event(3, 25)], place("critical")), true);
    tail.add(many(20, 22), true);
    display.hold();
    display.prepend(page(10, 19, 9), null);
    const times = display.rows().map((each) => (each.kind === "event" ? each.time : 0));
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(times).toHaveLength(16);
  });

  it("begins where both lanes have been read", () => {
    const tail = new Tail();
    const display = new Display(tail, applied);
    tail.add(taken([event(8, 5), event(9, 21)], place("critical")), true);
    tail.lose({ kind: "trimmed", lane: "normal", lost: [1, 2], maybe: true }, 0);
    tail.add(many(20, 22), false);
    const normals = ["normal:20", "normal:21", "normal:22"];
    expect(names(display.rows()).slice(0, 2)).toEqual(["critical:8", "critical:9"]);
    expect(names(display.whole())).toEqual(["critical:9", "trimmed", ...normals]);
    display.hold();
    display.prepend(page(4, 19, 3), null);
    expect(names(display.whole()).slice(0, 3)).toEqual(["normal:4", "normal:5", "critical:8"]);
  });
});

function row(seenEvent: SeenEvent) {
  const key = `${seenEvent.lane}:${seenEvent.offset}`;
  return {
    kind: "event",
    key,
    event: seenEvent,
    time: 0,
    phase: null,
    end: null,
    weight: 0,
  } as const;
}
