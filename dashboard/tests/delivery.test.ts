import { describe, expect, it } from "vitest";
import {
  ageWords,
  bytesWords,
  parseClients,
  parseDead,
  parseLanes,
  parseStats,
  ratesOf,
  tripWords,
} from "../src/lib/delivery.js";

const STATS = {
  node: "n1",
  version: "1.0",
  uptime: 12.5,
  hub: {
    sessions: { live: 2, replaying: 1, lagging: 0 },
    counts: { accepted: 100, duplicates: 3, deliveries: 250, replayed: 40 },
  },
  engine: { available: true, epoch: "e1", events: 90, bytes: 4_096 },
  broadcaster: {
    retry_queue: { queued: 5, retried: 4, succeeded: 3, abandoned: 2, queue_size: 1 },
    abandoned_by: { exhausted: 2, evicted: 0 },
    breaker: { state: "open", retry_after: 3.2 },
  },
};

describe("what the server tells", () => {
  it("is read from v1/stats", () => {
    expect(parseStats(STATS, 1_000)).toMatchObject({
      node: "n1",
      breaker: "open",
      breakerRetry: 3.2,
      queue: { queued: 5, retried: 4, succeeded: 3, abandoned: 2, queue_size: 1 },
      abandonedBy: [["exhausted", 2]],
      engine: { available: true, epoch: "e1", events: 90, bytes: 4_096 },
      sessions: { live: 2, replaying: 1, lagging: 0 },
      accepted: 100,
    });
  });

  it("may lack a broadcaster, as in a server that only reads", () => {
    expect(parseStats({ ...STATS, broadcaster: undefined }, 0)).toMatchObject({
      breaker: null,
      queue: null,
    });
  });

  it.each([null, 5, "x", [], {}, { hub: 5 }, { clients: 5 }, { streams: {} }, { dead: null }])(
    "is nothing where it is %j",
    (body) => {
      expect(parseStats(body, 0)).toBeNull();
      expect(parseClients(body)).toBeNull();
      expect(parseLanes(body)).toBeNull();
      expect(parseDead(body)).toBeNull();
    },
  );

  it("is read from v1/clients", () => {
    const body = {
      total: 7,
      clients: [
        {
          id: "s1",
          client_id: null,
          transport: "websocket",
          state: "lagging",
          uptime: 9,
          reconnects: 1,
          failures: 0,
          round_trip: null,
          lag: 12,
          window: 0.25,
          streams: { orders: {} },
        },
        { id: "s2", state: "a state of tomorrow" },
      ],
    };
    const list = parseClients(body);
    expect(list?.total).toBe(7);
    expect(list?.clients[0]).toMatchObject({
      id: "s1",
      roundTrip: null,
      lag: 12,
      streams: ["orders"],
    });
    expect(list?.clients[1]).toMatchObject({ state: "plain", uptime: 0, lag: null, streams: [] });
  });

  it("is read from v1/streams, a row for each lane", () => {
    const lane = { head: ["e1", 40], trimmed: 10, events: 30, bytes: 999 };
    const list = parseLanes({
      epoch: "e1",
      retention: { age: 604_800, events: 1_000_000, bytes: 2 ** 31 },
      streams: [
        {
          stream: "orders",
          system: false,
          lanes: { normal: lane, critical: { ...lane, events: 0 } },
        },
      ],
    });
    expect(list?.retention.age).toBe(604_800);
    expect(list?.lanes.map(({ lane: name, events }) => [name, events])).toEqual([
      ["critical", 0],
      ["normal", 30],
    ]);
    expect(list?.lanes[1]).toMatchObject({ stream: "orders", head: 40, trimmed: 10, bytes: 999 });
  });

  it("is read from v1/dead, the newest first", () => {
    const dead = (id: string) => ({
      id,
      stream: "s",
      reason: "exhausted",
      attempts: 4,
      event: { type: "t" },
    });
    const list = parseDead({ dead: [dead("a"), dead("b")], complete: false });
    expect(list?.dead.map(({ id, type }) => [id, type])).toEqual([
      ["b", "t"],
      ["a", "t"],
    ]);
    expect(list?.complete).toBe(false);
  });
});

describe("rates", () => {
  const stats = (at: number, accepted: number, node = "n1") => {
    const counts = { ...STATS.hub.counts, accepted };
    const parsed = parseStats({ ...STATS, node, hub: { ...STATS.hub, counts } }, at);
    if (!parsed) throw new Error("no stats");
    return parsed;
  };

  it("are between two looks", () => {
    expect(ratesOf(stats(1_000, 100), stats(3_000, 150))).toEqual({
      accepted: 25,
      delivered: 0,
      replayed: 0,
    });
  });

  it("are unknown before the second look and after a restart", () => {
    expect(ratesOf(null, stats(0, 1))).toBeNull();
    expect(ratesOf(stats(0, 100), stats(1_000, 5))).toBeNull();
    expect(ratesOf(stats(0, 100), stats(1_000, 200, "n2"))).toBeNull();
    expect(ratesOf(stats(5, 100), stats(5, 200))).toBeNull();
  });
});

describe("words", () => {
  it.each([
    [0, "0 B"],
    [1_023, "1023 B"],
    [1_536, "1.5 KiB"],
    [2 * 1_024 ** 3, "2.0 GiB"],
    [250 * 1_024 ** 2, "250 MiB"],
  ])("has %d bytes as %s", (bytes, words) => expect(bytesWords(bytes)).toBe(words));

  it.each([
    [604_800, "7 days"],
    [86_400, "1 day"],
    [43_200, "12 hours"],
    [90, "90 s"],
  ])("has %d seconds of retention as %s", (age, words) => expect(ageWords(age)).toBe(words));

  it.each([
    [0.0008, "0.8 ms"],
    [0.012, "12 ms"],
    [1.2, "1.20 s"],
  ])("has a round trip of %d as %s", (trip, words) => expect(tripWords(trip)).toBe(words));
});
