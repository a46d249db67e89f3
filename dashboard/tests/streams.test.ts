import { describe, expect, it } from "vitest";
import { chooseStream, parseStreams, problemOf, type Stream } from "../src/lib/streams.js";

const stream = (name: string, events: number, system = false): Stream => ({ name, events, system });

describe("the stream that is shown", () => {
  it("is the first with events", () => {
    const streams = [stream("a", 0), stream("b", 3), stream("c", 9)];
    expect(chooseStream(streams, null)).toBe("b");
  });

  it("stays while it has events", () => {
    expect(chooseStream([stream("a", 1), stream("b", 3)], "b")).toBe("b");
  });

  it("gives way to one that has events while it has none", () => {
    expect(chooseStream([stream("a", 0), stream("b", 3)], "a")).toBe("b");
  });

  it("is never one of the system's own by itself", () => {
    expect(chooseStream([stream("steadcast.dead", 5, true)], null)).toBeNull();
    expect(chooseStream([stream("steadcast.dead", 5, true), stream("z", 0)], null)).toBe("z");
  });

  it("is none where there is none, and stays when the list is gone", () => {
    expect(chooseStream([], null)).toBeNull();
    expect(chooseStream([], "a")).toBe("a");
  });
});

describe("the list of streams", () => {
  it("sums both lanes", () => {
    const lanes = { critical: { events: 2 }, normal: { events: 40 } };
    const body = { epoch: "e", streams: [{ stream: "a", system: false, lanes }] };
    expect(parseStreams(body)).toEqual([stream("a", 42)]);
  });

  it("takes what is of the form and leaves the rest", () => {
    for (const body of [null, 3, "x", {}, { streams: {} }]) expect(parseStreams(body)).toBeNull();
    expect(
      parseStreams({ streams: [null, 1, {}, { stream: "a", lanes: { normal: null } }] }),
    ).toEqual([stream("a", 0)]);
  });
});

describe("a problem in words", () => {
  it("is its detail, else its title, else its status", () => {
    expect(problemOf({ detail: "the disk is full", title: "T" }, 503)).toBe("the disk is full");
    expect(problemOf({ title: "T" }, 503)).toBe("T");
    expect(problemOf(null, 502)).toBe("the server answered 502");
  });
});
