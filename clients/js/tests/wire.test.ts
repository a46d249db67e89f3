import { describe, expect, it } from "vitest";
import {
  parseBatch,
  parseCursors,
  parseGoaway,
  parseLaneAnswers,
  parsePing,
  parseReceipts,
  parseWelcome,
  refusalOf,
  sizeOf,
} from "../src/wire.js";
import { batch, event, lanes } from "./fake.js";

const GOOD = batch(3, 5);

describe("what comes in", () => {
  it.each([
    ["no object", 7],
    ["null", null],
    ["a list", []],
    ["no stream", { ...GOOD, stream: undefined }],
    ["a lane that isn't", { ...GOOD, lane: "fast" }],
    ["an epoch outside the grammar", { ...GOOD, epoch: "e 1" }],
    ["a negative offset", { ...GOOD, after: -1 }],
    ["an offset that is no integer", { ...GOOD, upto: 5.5 }],
    ["an upto before after", { ...GOOD, after: 6, upto: 5 }],
    ["events that are no list", { ...GOOD, events: {} }],
    ["events out of order", { ...GOOD, events: [event(5), event(4)] }],
    ["an event twice", { ...GOOD, events: [event(4), event(4)] }],
    ["an event at after", { ...GOOD, events: [event(3)] }],
    ["an event above upto", { ...GOOD, events: [event(6)] }],
    ["an event without an id", { ...GOOD, events: [{ ...event(4), id: undefined }] }],
    ["an event whose priority isn't one", { ...GOOD, events: [{ ...event(4), priority: 1 }] }],
    ["an event whose subject is a number", { ...GOOD, events: [{ ...event(4), subject: 1 }] }],
  ])("is no batch: %s", (_, value) => {
    expect(parseBatch(value)).toBeUndefined();
  });

  it("is a batch, with holes in its offsets or without any event", () => {
    expect(parseBatch(GOOD)).toEqual(GOOD);
    expect(parseBatch({ ...GOOD, upto: 99, events: [event(50)] })).toBeDefined();
    expect(parseBatch({ ...GOOD, events: [] })).toBeDefined();
  });

  it("is an answer, or isn't", () => {
    expect(parseLaneAnswers(lanes().lanes)?.normal?.status).toBe("new");
    expect(parseLaneAnswers(lanes({ lost: [1, 4], maybe: true }).lanes)?.normal).toMatchObject({
      lost: [1, 4],
      maybe: true,
    });
    expect(parseLaneAnswers(lanes({ lost: [4, 4] }).lanes)?.normal?.lost).toEqual([4, 4]);
    expect(parseLaneAnswers(undefined)).toBeUndefined();
    for (const bad of [
      { status: "fine" },
      { head: ["e1"] },
      { behind: "many" },
      { cursor: [1, "e"] },
    ]) {
      expect(parseLaneAnswers({ normal: { ...lanes().lanes.normal, ...bad } })).toBeUndefined();
    }
  });

  it("is a welcome, a ping, a goaway, or isn't", () => {
    expect(parseWelcome({ version: 1, node: "n" })).toEqual({ version: 1, node: "n" });
    expect(parseWelcome("hello")).toBeUndefined();
    const ping = parsePing({ time: 3, heads: { s: { normal: ["e1", 4], critical: "x" } } });
    expect(ping?.heads.get("s")).toEqual({ normal: ["e1", 4] });
    expect(parsePing({ heads: {} })).toBeUndefined();
    expect(parseGoaway({ reason: "drain", reconnect_in: [9, 4] })?.reconnectIn).toEqual([4, 9]);
    expect(parseGoaway({ reason: "drain", reconnect_in: [-1, 4] })).toBeUndefined();
  });

  it("is a failed ack only as {ok: false, error: {code}}", () => {
    expect(refusalOf({ ok: false, error: { code: "x", temporary: true, retry_after: 2 } })).toEqual(
      {
        code: "x",
        temporary: true,
        message: "",
        retryAfter: 2,
      },
    );
    for (const success of [
      undefined,
      null,
      "no",
      { ok: true },
      { ok: false },
      { ok: false, error: 1 },
    ]) {
      expect(refusalOf(success)).toBeUndefined();
    }
  });

  it("is a receipt, or isn't", () => {
    const receipt = { id: "a", lane: "normal", position: ["e1", 1], duplicate: true };
    expect(parseReceipts({ results: [receipt] })).toEqual([receipt]);
    expect(parseReceipts({ results: [{ ...receipt, position: 1 }] })).toBeUndefined();
    expect(parseReceipts({})).toBeUndefined();
  });

  it("is a kept cursor, or is left out", () => {
    expect(parseCursors({ normal: ["e1", 4, "n4"], critical: ["e1", -4] })).toEqual({
      normal: ["e1", 4, "n4"],
    });
    expect(parseCursors({ normal: ["e1", 4, null] })).toEqual({ normal: ["e1", 4] });
    expect(parseCursors("x")).toEqual({});
  });

  it("has the size that the server counts", () => {
    expect(sizeOf({ ...event(1), id: "ab", source: "cd", type: "ef", data: { a: 1 } })).toBe(
      6 + 64 + 7,
    );
  });
});
