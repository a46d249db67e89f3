import type {
  ClientSnapshot,
  ConnectionMetrics,
  Counts,
  SubscriptionSnapshot,
} from "@steadcast/client";
import { describe, expect, it } from "vitest";
import { type Delivery, pillOf, titleOf, without } from "../src/lib/pill.js";

const NOW = Date.UTC(2026, 0, 1, 12);

function delivery(
  client: Partial<ClientSnapshot> = {},
  subscription: Partial<SubscriptionSnapshot> | null = { state: "live" },
  metrics: Partial<ConnectionMetrics> = {},
): Delivery {
  const quiet = { state: "online", node: "n", welcomed: true, error: null, goaway: null } as const;
  return {
    client: { ...quiet, ...client },
    subscription: subscription as SubscriptionSnapshot | null,
    metrics: { disconnects: 0, disconnectedFor: 0, ...metrics } as ConnectionMetrics,
  };
}

const AWAY = { state: "offline", welcomed: false } as const;

describe("the pill", () => {
  it("says live", () => {
    expect(pillOf(delivery(), NOW)).toMatchObject({ kind: "live", label: "live" });
  });

  it("counts a replay", () => {
    const progress = { done: 1_240, total: 5_000 };
    const pill = pillOf(delivery({}, { state: "replaying", progress }), NOW);
    expect(pill.label).toBe("replaying 1,240 of 5,000");
    expect(pill.progress).toEqual(progress);
  });

  it("never counts past the end, and counts nothing that nobody can tell", () => {
    const over = { done: 12, total: 10 };
    expect(pillOf(delivery({}, { state: "replaying", progress: over }), NOW).progress?.done).toBe(
      10,
    );
    for (const progress of [null, { done: 3, total: null }, { done: 0, total: 0 }]) {
      const pill = pillOf(delivery({}, { state: "replaying", progress }), NOW);
      expect(pill).toMatchObject({ label: "replaying", progress: null });
    }
  });

  it("says since when it is offline, also while it tries again", () => {
    const metrics = { disconnects: 1, disconnectedFor: 30 };
    for (const state of ["offline", "connecting"] as const) {
      const pill = pillOf(delivery({ ...AWAY, state }, { state: "offline" }, metrics), NOW);
      expect(pill.kind).toBe("offline");
      expect(pill.label).toMatch(/^offline since \d\d:\d\d:\d\d$/);
      expect(pill.since).toBe(NOW - 30_000);
    }
  });

  it("says of which day it is that it went offline", () => {
    const metrics = { disconnects: 1, disconnectedFor: 2 * 86_400 };
    const pill = pillOf(
      delivery({ ...AWAY, state: "offline" }, { state: "offline" }, metrics),
      NOW,
    );
    expect(pill.label).toMatch(/^offline since \d\d-\d\d \d\d:\d\d:\d\d$/);
  });

  it("connects at first, and is offline when the first connect failed", () => {
    const first = delivery({ ...AWAY, state: "connecting" }, null);
    expect(pillOf(first, NOW).kind).toBe("connecting");
    expect(pillOf(delivery(AWAY, null), NOW).kind).toBe("offline");
  });

  it("tells stale, draining and refused apart", () => {
    expect(pillOf(delivery({ state: "stale", welcomed: false }), NOW).kind).toBe("stale");
    expect(pillOf(delivery({ goaway: "restart" }), NOW)).toMatchObject({
      label: "server draining",
    });
    const error = { code: "unauthorized", temporary: false, message: "a token is wanted" };
    expect(pillOf(delivery({ state: "refused", welcomed: false, error }), NOW)).toMatchObject({
      kind: "refused",
      detail: "a token is wanted",
    });
    const refusal = "this token may not read the stream 'b'";
    expect(pillOf({ ...delivery({}, { state: "refused" }), refusal }, NOW)).toMatchObject({
      kind: "refused",
      detail: refusal,
    });
  });

  it("is offline, not draining, once the server that was leaving is gone", () => {
    const kind = (disconnectedFor: number) => {
      const metrics = { disconnects: 1, disconnectedFor };
      return pillOf(delivery({ ...AWAY, goaway: "drain" }, { state: "offline" }, metrics), NOW)
        .kind;
    };
    expect(kind(1)).toBe("draining");
    expect(kind(4)).toBe("offline");
  });

  it("is connected where there is no stream yet", () => {
    expect(pillOf(delivery({}, null), NOW).kind).toBe("connected");
  });
});

describe("the title", () => {
  it("begins with a loss, then the state, then the stream", () => {
    const pill = pillOf(delivery(), NOW);
    expect(titleOf(pill, 0, 0, "demo")).toBe("live · demo — Steadcast");
    expect(titleOf(pill, 1_200, 0, null)).toBe("lost 1,200 · live — Steadcast");
  });

  it("says how many sessions wait for a person", () => {
    const title = titleOf(pillOf(delivery(), NOW), 0, 2, "claude");
    expect(title).toBe("2 waiting · live · claude — Steadcast");
  });
});

describe("the bar's numbers", () => {
  it("leave out what the page follows for itself", () => {
    const metrics = {
      replayed: 12,
      duplicatesDropped: 3,
      gapsRepaired: 2,
      lost: 1,
      disconnects: 4,
    };
    const own = { replayed: 2, duplicatesDropped: 3, gapsRepaired: 1, lost: 0 } as Counts;
    const left = without(metrics as ConnectionMetrics, own);
    expect(left).toMatchObject({ replayed: 10, duplicatesDropped: 0, gapsRepaired: 1, lost: 1 });
    expect(left.disconnects).toBe(4);
    expect(without(metrics as ConnectionMetrics, undefined)).toBe(metrics);
  });
});
