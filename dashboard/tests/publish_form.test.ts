import { describe, expect, it } from "vitest";
import {
  type Draft,
  eventOf,
  receiptWords,
  refusalWords,
  wrongsOf,
} from "../src/lib/publish_form.js";

const DRAFT: Draft = {
  stream: "orders",
  type: "order.paid",
  source: "",
  subject: "",
  id: "",
  priority: "normal",
  data: '{"order": 17}',
};

describe("a draft", () => {
  it("without a wrong is an event", () => {
    expect(wrongsOf(DRAFT)).toEqual({});
    expect(eventOf({ ...DRAFT, subject: " 17 ", source: "/me" }, "m1")).toEqual({
      type: "order.paid",
      priority: "normal",
      data: { order: 17 },
      subject: "17",
      source: "/me",
      id: "m1",
    });
    expect(eventOf({ ...DRAFT, id: "mine", data: " " }, "m1")).toMatchObject({
      id: "mine",
      data: null,
    });
  });

  it.each([
    ["stream", "", /Which stream/],
    ["stream", "no spaces", /the first a letter/],
    ["stream", "steadcast.dead", /the system's own/],
    ["type", " ", /has a type/],
    ["type", "x".repeat(257), /256 characters/],
    ["id", "x".repeat(257), /256 characters/],
    ["subject", "x".repeat(1_025), /1,024 characters/],
    ["data", "{", /Not JSON/],
    ["data", `"${"x".repeat(262_144)}"`, /256 KiB/],
    [
      "data",
      '{"id": 12345678901234567890}',
      /send 12345678901234567890 as it is: put it in quotes/,
    ],
    ["data", "[0.1, -1e999]", /send -1e999 as it is/],
  ] as const)("with the %s %j is told what is wrong", (name, value, words) => {
    const wrongs = wrongsOf({ ...DRAFT, [name]: value });
    expect(Object.keys(wrongs)).toEqual([name]);
    expect(wrongs[name]).toMatch(words);
  });

  it("may have any number that JavaScript holds, and any digits in a text", () => {
    const data = '{"9007199254740993": [9007199254740991, -0.1, 1e300, "12345678901234567890"]}';
    expect(wrongsOf({ ...DRAFT, data })).toEqual({});
  });

  it("is told the line of what isn't JSON", () => {
    expect(wrongsOf({ ...DRAFT, data: '{\n  "a": 1,\n  b: 2\n}' }).data).toMatch(/line 3/);
  });
});

describe("what became of it", () => {
  const receipt = { id: "a", lane: "normal", position: ["e1", 1_204], duplicate: false } as const;

  it("is told with its place", () => {
    expect(receiptWords("orders", receipt)).toMatchObject({
      ok: true,
      words: "Durable: orders, normal lane, offset 1,204 of epoch e1.",
    });
    expect(receiptWords("orders", { ...receipt, duplicate: true }).words).toMatch(
      /^It was there already/,
    );
  });

  it("or why it wasn't taken, and what to do", () => {
    const refusal = { code: "id_conflict", message: "the id was used", temporary: false };
    expect(refusalWords({ code: "id_conflict", message: "emission failed: …", refusal })).toEqual({
      ok: false,
      words: "Not taken: the id was used.",
      hint: "This id stands for another event. Take another id, or leave it empty.",
    });
    expect(
      refusalWords({ code: "max_retries", message: "emission failed: max_retries" }),
    ).toMatchObject({
      words: "Not taken: the server gave no answer.",
      hint: expect.stringMatching(/keeps its id/),
    });
    expect(refusalWords(undefined).ok).toBe(false);
  });
});
