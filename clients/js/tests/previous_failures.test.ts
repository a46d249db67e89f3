/** How an earlier implementation of the same specification failed; each of its failures is a test here. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { batch, FakeNet, lanes, pass } from "./fake.js";

let net: FakeNet;

beforeEach(() => {
  vi.useFakeTimers();
  net = new FakeNet();
});

afterEach(() => {
  vi.useRealTimers();
});

describe("what failed before", () => {
  it("opened four sockets after an outage: there is one at any time, and nothing is shown twice", async () => {
    const client = net.client();
    const shown: string[] = [];
    client.subscribe("s", { onEvent: ({ id }) => shown.push(id) });
    net.up();
    net.socket.last("subscribe").ack?.(lanes());
    net.socket.receive("batch", batch(0, 2));
    await pass(10_000);
    net.socket.drop();
    for (let second = 0; second < 6; second += 1) {
      await pass(1_000);
      net.wake();
      expect(net.alive).toBeLessThanOrEqual(1);
      net.socket.fail();
      expect(net.alive).toBe(0);
    }
    await pass(15_000);
    expect(net.alive).toBe(1);
    net.up();
    net.socket
      .last("subscribe")
      .ack?.(lanes({ status: "resumed", cursor: ["e1", 2], head: ["e1", 4] }));
    for (const socket of net.sockets) socket.receive("batch", batch(2, 4));
    expect(shown).toEqual(["n1", "n2", "n3", "n4"]);
    expect(net.alive).toBe(1);
  });

  it("never came back after the server disconnected it: it is back within a second or two", async () => {
    net.chance = 0;
    const client = net.client();
    net.up();
    await pass(60_000);
    net.socket.receive("ping", { time: 1, heads: {} }).drop("io server disconnect");
    await pass(1_000);
    net.up();
    expect(client.snapshot().state).toBe("online");
  });

  it("called onSuccess without any ack: it is called by the ack alone", async () => {
    const client = net.client();
    net.up();
    const onSuccess = vi.fn();
    void client.emitWithRetry("e", 1, { onSuccess });
    await pass(14_000);
    expect(onSuccess).not.toHaveBeenCalled();
    net.socket.last("e").ack?.("stored");
    await pass(0);
    expect(onSuccess.mock.calls).toEqual([["stored"]]);
  });

  it("called onFailure for events that were later delivered: what has failed is never sent again", async () => {
    const client = net.client({ ackTimeout: 200, retryDelays: [100], maxRetryAttempts: 1 });
    const [onSuccess, onFailure] = [vi.fn(), vi.fn()];
    net.up();
    void client.emitWithRetry("e", 1, { onSuccess, onFailure });
    await pass(500);
    expect(onFailure.mock.calls).toEqual([["max_retries"]]);
    const tries = net.socket.all("e");
    expect(tries).toHaveLength(2);
    for (const { ack } of tries) ack?.("too late");
    net.socket.drop();
    await pass(20_000);
    net.up();
    await pass(20_000);
    expect(net.sockets.flatMap((socket) => socket.all("e"))).toHaveLength(2);
    expect([onSuccess.mock.calls.length, onFailure.mock.calls.length]).toEqual([0, 1]);
  });

  it("called onFailure for events that were later delivered: an ack of any try, in time, is a success", async () => {
    const client = net.client({ ackTimeout: 200, retryDelays: [100], maxRetryAttempts: 1 });
    const [onSuccess, onFailure] = [vi.fn(), vi.fn()];
    net.up();
    void client.emitWithRetry("e", 1, { onSuccess, onFailure });
    await pass(250);
    net.socket.all("e")[0]?.ack?.("late, but here");
    await pass(20_000);
    expect(onSuccess.mock.calls).toEqual([["late, but here"]]);
    expect(onFailure).not.toHaveBeenCalled();
    expect(net.socket.all("e")).toHaveLength(1);
  });

  it("lost the rest when a flush was cut in the middle: an entry leaves when it is acked", async () => {
    const client = net.client();
    for (let count = 0; count < 10; count += 1) void client.emitWithRetry("e", count);
    net.up();
    await pass(350);
    const first = net.socket;
    expect(first.all("e").map(({ args }) => args[0])).toEqual([0, 1, 2, 3]);
    first.all("e")[0]?.ack?.("yes");
    first.drop();
    expect(client.getConnectionMetrics()).toMatchObject({ queuedEvents: 9, pendingEmissions: 0 });
    await pass(1_000);
    net.up();
    await pass(900);
    expect(net.socket.all("e").map(({ args }) => args[0])).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(net.socket.all("e")[0]?.args[1], "the same emission").toEqual(
      first.all("e")[1]?.args[1],
    );
  });

  it("let uptime go on while offline: it is 0 without a connection and begins anew with the next", async () => {
    const client = net.client();
    net.up();
    await pass(5_000);
    expect(client.getConnectionMetrics().uptime).toBe(5);
    net.socket.drop();
    await pass(400);
    expect(client.getConnectionMetrics()).toMatchObject({
      isConnected: false,
      uptime: 0,
      disconnects: 1,
      disconnectedFor: 0.4,
    });
    await pass(600);
    net.up();
    await pass(1_000);
    expect(client.getConnectionMetrics()).toMatchObject({ uptime: 1, disconnectedFor: 0 });
  });

  it("found a background tab stale because its timers were throttled: timestamps decide", async () => {
    const client = net.client();
    net.up();
    const advance = performance.now();
    const clock = vi.spyOn(performance, "now");
    clock.mockReturnValue(advance + 300_000);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(client.snapshot().state, "the pings may wait behind the timer").toBe("online");
    net.socket.receive("ping", { time: 1, heads: {} });
    clock.mockReturnValue(advance + 311_000);
    await vi.advanceTimersByTimeAsync(10_000);
    expect([client.snapshot().state, net.sockets.length]).toEqual(["online", 1]);
    clock.mockRestore();
  });
});
