import { describe, expect, it } from "vitest";
import type { Answer } from "../src/lib/contract.js";
import { whenKept } from "../src/lib/kept.js";
import { seen } from "../src/lib/seen.js";
import { event, one, place } from "./events.js";

const { signal } = new AbortController();
const KEPT = "2026-01-01T00:00:07.250Z";

/** A server with one answer, which notes what it is asked. */
function server(answer: Answer) {
  const asked: string[] = [];
  const ask = async (path: string) => {
    asked.push(path);
    return answer;
  };
  return { ask, asked };
}

const page = (events: unknown): Answer => ({ ok: true, status: 200, body: { events } });

describe("when an event was kept", () => {
  it("is asked of the log for that event alone", async () => {
    const log = server(page([{ offset: 7, kept: KEPT }]));
    expect(await whenKept(log, one(7, 0), signal)).toBe(Date.parse(KEPT));
    expect(log.asked).toEqual(["v1/streams/s/events?lane=normal&after=e1:6&limit=1"]);
  });

  it("is known of what was read from the log", async () => {
    const log = server(page([]));
    const read = seen({ ...event(7, 0), kept: KEPT }, place("normal"), 0);
    expect(await whenKept(log, read, signal)).toBe(Date.parse(KEPT));
    expect(log.asked).toEqual([]);
  });

  it("isn't known where the event is gone, or nobody tells", async () => {
    const away = { code: "", detail: "", temporary: true, problem: null };
    const answers: Answer[] = [
      page([{ offset: 8, kept: KEPT }]),
      page([{ offset: 7 }]),
      page([]),
      page(null),
      { ok: false, status: 410, ...away },
    ];
    for (const answer of answers)
      expect(await whenKept(server(answer), one(7, 0), signal)).toBeNull();
  });
});
