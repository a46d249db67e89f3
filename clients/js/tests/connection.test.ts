import { describe, expect, it } from "vitest";
import { Backoff } from "../src/backoff.js";
import { Connection, type ConnectionEffect } from "../src/connection.js";
import { IllegalInput } from "../src/errors.js";
import { Random, seeds } from "./random.js";

function online(): Connection {
  const connection = new Connection();
  connection.open(0);
  connection.accepted(0);
  return connection;
}

describe("connection", () => {
  it("opens one socket, and none while one is there or on its way", () => {
    const connection = new Connection();
    expect(connection.open(0)).toEqual(["open"]);
    expect(connection.open(1)).toEqual([]);
    connection.accepted(2);
    expect(connection.open(3)).toEqual([]);
  });

  it("comes back after any end, with a wider backoff after each failure", () => {
    const connection = online();
    expect(connection.lost(10_000, 0)).toEqual(["shut"]);
    expect(connection.nextDeadline()).toBe(11_000);
    expect(connection.handleTimeout(10_999, 0)).toEqual([]);
    expect(connection.handleTimeout(11_000, 0)).toEqual(["open"]);
    connection.lost(11_000, 0);
    expect(connection.nextDeadline()).toBe(13_000);
  });

  it("begins the backoff anew only after a connection that lasted", () => {
    const connection = online();
    connection.lost(1_000, 0);
    connection.handleTimeout(2_000, 0);
    connection.accepted(2_000);
    connection.lost(3_000, 0);
    expect(connection.nextDeadline(), "it lasted a second").toBe(5_000);
    connection.handleTimeout(5_000, 0);
    connection.accepted(5_000);
    connection.lost(15_000, 0);
    expect(connection.nextDeadline(), "it lasted ten").toBe(16_000);
  });

  it("counts a connect without an answer as failed", () => {
    const connection = new Connection({ connectTimeout: 20_000 });
    connection.open(0);
    expect(connection.handleTimeout(20_000, 0)).toEqual(["shut"]);
    expect(connection.state).toBe("waiting");
  });

  it("honours retry_after, also when it is woken", () => {
    const connection = new Connection();
    connection.open(0);
    connection.lost(0, 0, 9_000);
    expect(connection.wake(1_000)).toEqual([]);
    expect(connection.nextDeadline()).toBe(9_000);
  });

  it("counts a connection that is refused while it is there as one that ended", () => {
    const connection = online();
    connection.refused(9_000, { code: "forbidden", temporary: false, message: "" });
    expect([connection.uptime(10_000), connection.disconnectedFor(10_000)]).toEqual([0, 1_000]);
    expect(connection.disconnects).toBe(1);
  });

  it("stays refused until it is asked to connect again", () => {
    const connection = new Connection();
    connection.open(0);
    const refusal = { code: "forbidden", temporary: false, message: "no" };
    expect(connection.refused(0, refusal)).toEqual(["shut"]);
    expect(connection.refusal).toEqual(refusal);
    expect(connection.nextDeadline()).toBeUndefined();
    expect(connection.wake(60_000)).toEqual([]);
    expect(connection.open(60_000)).toEqual(["open"]);
  });

  it("wakes at once, but not more often than once a second", () => {
    const connection = new Connection();
    connection.open(0);
    connection.lost(500, 0, 0);
    expect(connection.wake(600)).toEqual([]);
    expect(connection.nextDeadline()).toBe(1_000);
    expect(connection.wake(1_000)).toEqual(["open"]);
  });

  it("leaves after a goaway at its own random time, and not sooner", () => {
    const connection = online();
    connection.goaway(10_000, 2_000, 6_000, 0.5);
    expect(connection.nextDeadline()).toBe(14_000);
    expect(connection.handleTimeout(13_999, 0)).toEqual([]);
    expect(connection.handleTimeout(14_000, 0)).toEqual(["shut", "open"]);
  });

  it("waits for its goaway time where the connection ends before, even if it is woken", () => {
    const connection = online();
    connection.goaway(10_000, 2_000, 6_000, 0.5);
    connection.lost(11_000, 0);
    expect(connection.wake(12_500)).toEqual([]);
    expect(connection.nextDeadline()).toBe(14_000);
    expect(connection.handleTimeout(14_000, 0)).toEqual(["open"]);
  });

  it("opens another at once for a stale connection, with a backoff if it had hardly begun", () => {
    const connection = online();
    expect(connection.cycle(50_000, 0, true)).toEqual(["shut", "open"]);
    expect(connection.stale).toBe(true);
    connection.accepted(51_000);
    expect(connection.stale).toBe(false);
    expect(connection.cycle(51_500, 0, false)).toEqual(["shut"]);
    expect(connection.state).toBe("waiting");
  });

  it("measures uptime and absence", () => {
    const connection = online();
    expect(connection.uptime(4_000)).toBe(4_000);
    connection.lost(10_000, 0);
    expect(connection.uptime(12_000)).toBe(0);
    expect(connection.disconnectedFor(12_000)).toBe(2_000);
    expect(connection.disconnects).toBe(1);
  });

  it("refuses inputs that its state forbids", () => {
    expect(() => new Connection().accepted(0)).toThrow(IllegalInput);
    expect(() => new Connection().lost(0, 0)).toThrow(IllegalInput);
  });

  it.each(seeds(200))("never asks for a second socket while one is open (seed %i)", (seed) => {
    const random = new Random(seed);
    const connection = new Connection({ backoff: new Backoff() });
    let open = 0;
    const obey = (effects: readonly ConnectionEffect[]) => {
      for (const effect of effects) {
        open = effect === "open" ? open + 1 : 0;
        expect(open).toBeLessThanOrEqual(1);
      }
    };
    let now = 0;
    for (let step = 0; step < 200; step += 1) {
      now += random.below(8_000);
      obey(connection.handleTimeout(now, random.next()));
      obey(input(connection, now, random));
    }
  });
});

function input(connection: Connection, now: number, random: Random): readonly ConnectionEffect[] {
  const { state } = connection;
  const busy = state === "online" || state === "connecting";
  switch (random.below(7)) {
    case 0:
      return connection.open(now);
    case 1:
      if (state === "connecting") connection.accepted(now);
      return [];
    case 2:
      return busy ? connection.lost(now, random.next()) : [];
    case 3:
      return connection.wake(now);
    case 4:
      return connection.cycle(now, random.next(), true);
    case 5:
      connection.goaway(now, 0, 5_000, random.next());
      return [];
    default:
      return random.chance(0.1) ? connection.close(now) : [];
  }
}
