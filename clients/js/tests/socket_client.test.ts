import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import packageJson from "../package.json" with { type: "json" };
import { Receiver } from "../src/cursor.js";
import { InvalidRequest } from "../src/errors.js";
import { PACKAGE_VERSION } from "../src/version.js";
import { batch, event, FakeNet, lanes, pass } from "./fake.js";

let net: FakeNet;

beforeEach(() => {
  vi.useFakeTimers();
  net = new FakeNet();
});

afterEach(() => {
  vi.useRealTimers();
  expect(net.reported).toEqual([]);
});

describe("cutting the connection", () => {
  it("blames nothing that is under way, as the user's own end of it doesn't", async () => {
    net.chance = 0;
    const client = net.client();
    const failed = vi.fn();
    client.emitWithRetry("e", 1).catch(failed);
    for (let time = 0; time < 30; time += 1) {
      net.up();
      await pass(200);
      expect(net.socket.all("e")).toHaveLength(1);
      if (time % 2) client.cut(0);
      else client.disconnect().connect();
      await pass(5_000);
    }
    expect(failed).not.toHaveBeenCalled();
    net.up();
    await pass(200);
    net.socket.last("e").ack?.(1);
    client.close();
  });

  it("is away for the time that was asked for, told as an outage, and comes back by itself", async () => {
    net.chance = 0;
    const client = net.client();
    const heard = vi.fn();
    client.on("disconnect", heard);
    net.up();
    await pass(10_000);
    client.cut(3);
    expect(net.socket.phase).toBe("shut");
    expect(heard).toHaveBeenCalledWith("cut");
    expect(client.snapshot().state).toBe("offline");
    expect(client.getConnectionMetrics().disconnects).toBe(1);
    await pass(2_900);
    net.wake();
    expect(net.sockets).toHaveLength(1);
    await pass(200);
    expect(net.sockets).toHaveLength(2);
    net.up();
    expect(client.connected).toBe(true);
  });

  it("keeps subscriptions and their cursors", async () => {
    net.chance = 0;
    const client = net.client();
    const applied: string[] = [];
    client.subscribe("s", { from: "start", onEvent: ({ id }) => void applied.push(id) });
    net.up();
    net.socket.last("subscribe").ack?.(lanes());
    net.socket.receive("batch", batch(0, 2));
    await pass(10);
    expect(applied).toHaveLength(2);
    client.cut(1);
    await pass(2_000);
    net.up();
    expect(net.socket.last("subscribe").args[0]).toMatchObject({
      cursors: { normal: ["e1", 2, "n2"] },
    });
  });

  it("does nothing while there is no connection", async () => {
    const client = net.client();
    client.cut(5);
    expect(net.sockets).toHaveLength(1);
    expect(client.getConnectionMetrics().disconnects).toBe(0);
  });
});

describe("following many streams", () => {
  it("looks at each of them as often as it changes, not as often as any of them does", async () => {
    const looks = vi.spyOn(Receiver.prototype, "nextDeadline");
    const many = 300;
    const client = net.client();
    for (let n = 0; n < many; n += 1)
      client.subscribe(`s${n}`, { from: "start", onEvent: () => {} });
    net.up();
    for (const { ack } of net.socket.all("subscribe")) ack?.(lanes());
    for (let n = 0; n < many; n += 1)
      net.socket.receive("batch", { ...batch(0, 2), stream: `s${n}` });
    await pass(5_000);
    expect(net.socket.all("ack")).toHaveLength(many);
    expect(looks.mock.calls.length).toBeLessThan(20 * many);
    client.close();
    looks.mockRestore();
  });
});

describe("connecting", () => {
  it("sends who it is and its token, and never the keys pid or offset", async () => {
    net.client({ token: "t1", clientId: "c1" });
    expect(net.socket.auth).toEqual({
      token: "t1",
      client: { id: "c1", version: PACKAGE_VERSION },
    });
    expect(PACKAGE_VERSION).toBe(packageJson.version);
  });

  it("connects without a token where there is none", () => {
    net.client({ clientId: "c1" });
    expect(Object.keys(net.socket.auth as object)).toEqual(["client"]);
  });

  it("doesn't connect before it is told to, with autoConnect off", () => {
    const client = net.client({ autoConnect: false });
    expect(net.sockets).toHaveLength(0);
    expect(client.snapshot().state).toBe("idle");
    client.connect();
    expect(net.sockets).toHaveLength(1);
  });

  it("asks for a fresh token at every connect", async () => {
    let count = 0;
    net.client({ token: async () => `t${++count}` });
    await pass(0);
    expect(net.socket.auth).toMatchObject({ token: "t1" });
    net.up();
    await pass(10_000);
    net.socket.drop();
    await pass(1_000);
    expect(net.socket.auth).toMatchObject({ token: "t2" });
  });

  it("counts a token function that fails, and tries again", async () => {
    const token = vi.fn().mockRejectedValueOnce(new Error("no")).mockResolvedValue("t2");
    const client = net.client({ token });
    await pass(2_000);
    expect(net.socket.auth).toMatchObject({ token: "t2" });
    expect(client.getConnectionMetrics().tokenFailures).toBe(1);
  });

  it("drops a token that comes after the connect was given up", async () => {
    let answer: (token: string) => void = () => undefined;
    const client = net.client({ token: () => new Promise((resolve) => (answer = resolve)) });
    client.disconnect();
    answer("late");
    await pass(0);
    expect(net.sockets).toHaveLength(0);
  });

  it("stays refused, told and not hammering, where the refusal is permanent", async () => {
    const client = net.client();
    net.socket.refuse("no", { code: "forbidden", temporary: false });
    await pass(3_600_000);
    net.wake();
    expect(net.sockets).toHaveLength(1);
    expect(client.snapshot()).toMatchObject({
      state: "refused",
      error: { code: "forbidden", message: "no" },
    });
    client.connect();
    expect(net.alive).toBe(1);
  });

  it("tries again after a temporary refusal, not before retry_after", async () => {
    net.client();
    net.socket.refuse("busy", { code: "rate_limited", temporary: true, retry_after: 9 });
    await pass(8_999);
    expect(net.sockets).toHaveLength(1);
    await pass(1);
    expect(net.sockets).toHaveLength(2);
  });

  it("tries again where a plain server refuses without a word of ours", async () => {
    net.client();
    net.socket.refuse("Connection rejected by server");
    await pass(1_000);
    expect(net.sockets).toHaveLength(2);
  });

  it("waits for the pings of a server that sends them once a minute", async () => {
    const client = net.client();
    net.socket.accept().receive("welcome", { version: 1, node: "n1", ping_interval: 60 });
    for (let minute = 0; minute < 3; minute += 1) {
      await pass(60_000);
      net.socket.receive("ping", { time: minute, heads: {} });
    }
    expect(net.sockets).toHaveLength(1);
    client.close();
  });

  it("shows a token without the line end that a file or an answer has behind it", async () => {
    const given = net.client({ token: " t0\n" });
    expect(net.socket.auth).toMatchObject({ token: "t0" });
    given.close();
    const asked = net.client({ token: async () => "t1\n" });
    await pass(0);
    expect(net.socket.auth).toMatchObject({ token: "t1" });
    asked.close();
  });

  it.each(["token_expired", "token_revoked"])(
    "comes back with a fresh token after %s, everything kept",
    async (code) => {
      let count = 0;
      const client = net.client({ token: () => `t${++count}` });
      await pass(0);
      const applied: string[] = [];
      client.subscribe("s", { onEvent: ({ id }) => applied.push(id) });
      net.up();
      net.socket.last("subscribe").ack?.(lanes());
      net.socket.receive("batch", batch(0, 2));
      await pass(60_000 - 25_000);
      net.socket.receive("error", { code, temporary: true, message: "" });
      await pass(0);
      net.up();
      expect(net.socket.auth).toMatchObject({ token: "t2" });
      expect(net.socket.last("subscribe").args[0]).toMatchObject({
        cursors: { normal: ["e1", 2, "n2"] },
      });
      expect(net.alive).toBe(1);
    },
  );

  it("reads a welcome that is heard just before the connect is", () => {
    const client = net.client();
    net.socket.connected = true;
    net.socket.receive("welcome", { version: 1, node: "n" });
    net.socket.accept();
    expect(client.snapshot()).toMatchObject({ state: "online", welcomed: true, node: "n" });
  });

  it("hears nothing from a socket that it has given up", async () => {
    const client = net.client();
    const first = net.up();
    client.disconnect().connect();
    net.up();
    first.accept().welcome().drop();
    expect(client.snapshot().state).toBe("online");
  });

  it("connects no more once it is closed", () => {
    const client = net.client();
    client.close();
    expect(() => client.connect()).toThrow(InvalidRequest);
    expect(net.alive).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("goaway", () => {
  it("stays until its own time in the range and reconnects then", async () => {
    net.chance = 0.25;
    const client = net.client();
    net.up();
    net.socket.receive("goaway", { reason: "drain", reconnect_in: [4, 8] });
    expect(client.snapshot()).toMatchObject({ state: "online", goaway: "drain" });
    await pass(4_999);
    expect(net.sockets).toHaveLength(1);
    await pass(1);
    expect([net.sockets.length, net.alive]).toEqual([2, 1]);
  });

  it("doesn't come back sooner where the server ends the connection, even if the page wakes", async () => {
    net.client();
    net.up();
    net.socket.receive("goaway", { reason: "drain", reconnect_in: [4, 8] });
    net.socket.drop("io server disconnect");
    await pass(5_000);
    net.wake();
    expect(net.sockets).toHaveLength(1);
    await pass(1_000);
    expect(net.sockets).toHaveLength(2);
  });
});

describe("health", () => {
  it("answers a ping with its own time", () => {
    net.client();
    net.up().receive("ping", { time: 12.5, heads: {} });
    expect(net.socket.last("pong").args).toEqual([{ time: 12.5 }]);
  });

  it("reconnects by force after 40 s without a ping, and says stale meanwhile", async () => {
    const client = net.client();
    const subscription = client.subscribe("s");
    net.up();
    await pass(39_999);
    expect(net.sockets).toHaveLength(1);
    await pass(1);
    expect([net.sockets.length, net.alive]).toEqual([2, 1]);
    expect([client.snapshot().state, subscription.snapshot().state]).toEqual(["stale", "stale"]);
    net.up();
    expect(client.snapshot().state).toBe("online");
  });

  it("keeps a connection whose pings come", async () => {
    net.client();
    net.up();
    for (let ping = 0; ping < 10; ping += 1) {
      await pass(30_000);
      net.socket.receive("ping", { time: ping, heads: {} });
    }
    expect(net.sockets).toHaveLength(1);
  });

  it("judges no plain server by pings that it never promised, nor answers its own", async () => {
    net.client();
    net.socket.accept().receive("ping", { time: 1 });
    await pass(600_000);
    expect(net.sockets).toHaveLength(1);
    expect(net.socket.all("pong")).toEqual([]);
  });

  it("takes pingTimeout as a setting and as a field", async () => {
    const client = net.client({ pingTimeout: 20_000 });
    expect(client.pingTimeout).toBe(20_000);
    net.up();
    client.pingTimeout = 30_000;
    await pass(20_000);
    expect(net.sockets).toHaveLength(1);
    await pass(10_000);
    expect(net.sockets).toHaveLength(2);
  });

  it("reconnects at once when the page wakes", async () => {
    net.chance = 0.01;
    net.client();
    net.socket.fail();
    await pass(5_000);
    net.socket.fail();
    const before = net.sockets.length;
    await pass(1_000);
    expect(net.sockets).toHaveLength(before);
    net.wake();
    expect(net.sockets).toHaveLength(before + 1);
  });
});

describe("plain Socket.IO", () => {
  it("hands events to listeners, over every socket, once where asked", async () => {
    const client = net.client();
    const on = vi.fn();
    const once = vi.fn();
    client.on("news", on).once("news", once);
    net.up().receive("news", 1, "two");
    net.socket.drop();
    await pass(1_000);
    net.up().receive("news", 2);
    expect(on.mock.calls).toEqual([[1, "two"], [2]]);
    expect(once.mock.calls).toEqual([[1, "two"]]);
    client.off("news", on);
    net.socket.receive("news", 3);
    expect(on).toHaveBeenCalledTimes(2);
  });

  it("tells connect, disconnect and connect_error", async () => {
    const client = net.client();
    const seen: unknown[] = [];
    client.on("connect", () => seen.push("connect"));
    client.on("disconnect", (reason: string) => seen.push(reason));
    client.on("connect_error", (error: Error) => seen.push(error.message));
    net.up().drop("transport error");
    await pass(1_000);
    net.socket.fail();
    expect(seen).toEqual(["connect", "transport error", "websocket error"]);
  });

  it("tells every end of a connection once, whoever made it, and a connect without answer", async () => {
    const client = net.client();
    const heard: string[] = [];
    client.on("connect", () => heard.push("connect"));
    client.on("disconnect", (reason: string) => heard.push(reason));
    client.on("connect_error", ({ message }: Error) => heard.push(message));
    net.up();
    await pass(45_000);
    net.up();
    await pass(6_000);
    net.socket.receive("error", { code: "token_expired", temporary: true, message: "" });
    net.up().receive("goaway", { reason: "draining", reconnect_in: [1, 1] });
    await pass(2_000);
    await pass(21_000);
    net.up();
    client.disconnect().disconnect().connect().close();
    expect(heard).toEqual([
      ...["connect", "stale", "connect", "token_expired", "connect", "goaway", "timeout"],
      ...["connect", "io client disconnect"],
    ]);
  });

  it("hears nothing on a connection that a listener of its connect ended", () => {
    const client = net.client();
    client.once("connect", () => client.disconnect());
    client.subscribe("s");
    net.socket.receive("welcome", { version: 1, node: "n1" });
    expect(client.snapshot()).toMatchObject({ state: "closed", welcomed: false });
    client.connect();
    net.up().last("subscribe");
    expect(client.snapshot()).toMatchObject({ state: "online", welcomed: true });
  });

  it("emits as it is, and holds what is emitted without a connection", () => {
    const client = net.client();
    client.emit("a", 1, 2);
    expect(net.socket.sent).toEqual([]);
    net.socket.accept();
    client.emit("b");
    expect(net.socket.sent.map(({ event: name, args }) => [name, ...args])).toEqual([
      ["a", 1, 2],
      ["b"],
    ]);
  });

  it("drops the oldest of more than 1,000 held emissions, counted", () => {
    const client = net.client();
    for (let count = 0; count < 1_003; count += 1) client.emit("e", count);
    net.socket.accept();
    expect(net.socket.sent).toHaveLength(1_000);
    expect(net.socket.sent[0]?.args).toEqual([3]);
    expect(client.getConnectionMetrics().emitsDropped).toBe(3);
  });

  it("keeps an emission that a dying socket only buffered for the next one", async () => {
    const client = net.client();
    const dying = net.up();
    vi.spyOn(dying, "emit").mockImplementation((...args) => {
      dying.sendBuffer.push(args);
      return dying;
    });
    client.emit("a", 1);
    expect(dying.sendBuffer).toEqual([]);
    dying.drop("ping timeout");
    await pass(1_000);
    net.up();
    expect(net.socket.all("a")).toHaveLength(1);
  });

  it("lets a listener that throws keep neither the others nor the protocol from hearing", () => {
    const client = net.client();
    const other = vi.fn();
    client.on("ping", () => {
      throw new Error("mine");
    });
    client.on("ping", other);
    net.up().receive("ping", { time: 1, heads: {} });
    expect(net.socket.all("pong")).toHaveLength(1);
    expect(other).toHaveBeenCalledOnce();
    expect(net.reported.splice(0)).toMatchObject([{ message: "mine" }]);
  });
});

describe("emitWithRetry", () => {
  it("carries its id after a welcome, and a retry keeps it", async () => {
    const client = net.client({ ackTimeout: 500 });
    net.up();
    const sent = client.emitWithRetry("e", { x: 1 });
    await pass(1_500);
    const ids = net.socket.all("e").map(({ args }) => args[1]);
    expect(ids).toHaveLength(2);
    expect(new Set(ids.map((id) => JSON.stringify(id)))).toHaveLength(1);
    expect(ids[0]).toMatchObject({ emission: expect.any(String) });
    net.socket.last("e").ack?.({ ok: true });
    await expect(sent).resolves.toEqual({ ok: true });
  });

  it("takes an event without data, and gives a plain server's handler none", async () => {
    const client = net.client();
    net.socket.accept();
    void client.emitWithRetry("beat");
    void client.emitWithRetry("none", null);
    await pass(1_200);
    expect(net.socket.last("beat").args).toEqual([]);
    expect(net.socket.last("none").args).toEqual([null]);
    client.close();
  });

  it("carries no id where no welcome came: other servers' handlers aren't surprised", async () => {
    const client = net.client();
    net.socket.accept();
    void client.emitWithRetry("e", 1);
    await pass(999);
    expect(net.socket.all("e"), "the welcome may still come").toEqual([]);
    await pass(1);
    expect(net.socket.last("e").args).toEqual([1]);
  });

  it("fails at once on a permanent answer, and retries a temporary one", async () => {
    const client = net.client();
    net.up();
    const onFailure = vi.fn();
    const bad = client.emitWithRetry("bad", 1, { onFailure });
    net.socket.last("bad").ack?.({ ok: false, error: { code: "invalid_event", temporary: false } });
    await expect(bad).rejects.toMatchObject({ reason: "invalid_event", code: "invalid_event" });
    expect(onFailure.mock.calls).toEqual([["invalid_event"]]);
    void client.emitWithRetry("busy", 1);
    net.socket.last("busy").ack?.({ ok: false, error: { code: "engine_full", temporary: true } });
    await pass(1_000);
    expect(net.socket.all("busy")).toHaveLength(2);
    expect(client.getConnectionMetrics().retryAttempts).toBe(1);
  });

  it("takes its settings from the constructor, from fields and per emission", async () => {
    const client = net.client({ maxRetryAttempts: 1, retryDelays: [10], ackTimeout: 100 });
    net.up();
    const onFailure = vi.fn();
    void client.emitWithRetry("a", 1, { onFailure });
    await pass(210);
    expect(net.socket.all("a")).toHaveLength(2);
    expect(onFailure).toHaveBeenCalledWith("max_retries");
    client.maxRetryAttempts = 0;
    void client.emitWithRetry("b", 1);
    void client.emitWithRetry("c", 1, { maxRetries: 2, retryDelays: [20, 30] });
    await pass(1_000);
    expect([net.socket.all("b").length, net.socket.all("c").length]).toEqual([1, 3]);
  });

  it("has the specification's defaults", () => {
    const { maxRetryAttempts, retryDelays, maxQueueSize, pingTimeout } = net.client();
    expect({ maxRetryAttempts, retryDelays, maxQueueSize, pingTimeout }).toEqual({
      maxRetryAttempts: 3,
      retryDelays: [1_000, 2_000, 4_000],
      maxQueueSize: 100,
      pingTimeout: 40_000,
    });
  });

  it("queues 100 offline, evicts the oldest normal one, and says queue_full", async () => {
    const client = net.client();
    const failed: number[] = [];
    for (let count = 0; count < 103; count += 1) {
      const onFailure = (reason: string) => reason === "queue_full" && failed.push(count);
      void client.emitWithRetry("e", count, {
        onFailure,
        priority: count === 0 ? "critical" : "normal",
      });
    }
    await pass(0);
    expect(failed).toEqual([1, 2, 3]);
    expect(client.getConnectionMetrics().queuedEvents).toBe(100);
    client.maxQueueSize = 50;
    expect(client.maxQueueSize).toBe(50);
  });

  it("flushes in order, 100 ms apart, once the connection is back", async () => {
    const client = net.client();
    for (const each of [1, 2, 3]) void client.emitWithRetry("e", each);
    net.up();
    const seen = () => net.socket.all("e").map(({ args }) => args[0]);
    expect(seen()).toEqual([1]);
    await pass(99);
    expect(seen()).toEqual([1]);
    await pass(101);
    expect(seen()).toEqual([1, 2, 3]);
  });

  it("fails what can't be sent, and goes on: in a queue too, and among plain emissions that waited", async () => {
    const client = net.client();
    const offline = client.emitWithRetry("e", { n: 1n }).catch((error) => error);
    client.emit("plain", { n: 2n }).emit("plain", 3);
    const connected = vi.fn();
    client.on("connect", connected);
    net.up();
    expect(connected).toHaveBeenCalled();
    expect(net.socket.all("plain").map(({ args }) => args)).toEqual([[3]]);
    expect(net.reported.splice(0)).toHaveLength(1);
    expect(client.getConnectionMetrics().emitsDropped).toBe(1);
    expect(await offline).toMatchObject({ reason: "unsendable", temporary: false });
    await expect(client.emitWithRetry("e", { n: 4n })).rejects.toMatchObject({
      reason: "unsendable",
    });
    expect(client.getConnectionMetrics()).toMatchObject({ pendingEmissions: 0, queuedEvents: 0 });
  });

  it("keeps nothing of an emission that was answered or given up", async () => {
    const client = net.client();
    net.up();
    const sent = client.emitWithRetry("e", 1);
    net.socket.all("e")[0]?.ack?.({ ok: true });
    await sent;
    await client.emitWithRetry("e", { n: 1n }).catch(() => undefined);
    const { waiting } = Reflect.get(client, "emissions") as { waiting: Map<string, unknown> };
    expect(waiting.size).toBe(0);
  });

  it("reports a callback that throws, and goes on", async () => {
    const client = net.client();
    net.up();
    const onSuccess = () => {
      throw new Error("mine");
    };
    const sent = client.emitWithRetry("e", 1, { onSuccess });
    net.socket.last("e").ack?.("yes");
    await expect(sent).resolves.toBe("yes");
    expect(net.reported.splice(0)).toMatchObject([{ message: "mine" }]);
  });

  it("ends as closed what is still here when the client is closed", async () => {
    const client = net.client();
    const onFailure = vi.fn();
    const sent = client.emitWithRetry("e", 1, { onFailure });
    client.close();
    await expect(sent).rejects.toMatchObject({ reason: "closed", kept: false });
    expect(onFailure).toHaveBeenCalledWith("closed");
    expect(() => client.emitWithRetry("e", 2)).toThrow(InvalidRequest);
  });
});

describe("publish", () => {
  it("gives an event id, source and time once, so that a retry sends the same", async () => {
    const client = net.client({ clientId: "c1", ackTimeout: 100, retryDelays: [10] });
    net.up();
    const published = client.publish("s", { type: "t", data: 1 });
    await pass(110);
    const [first, second] = net.socket.all("publish").map(({ args }) => args[0]);
    expect(second).toEqual(first);
    expect(first).toMatchObject({
      stream: "s",
      events: [{ type: "t", data: 1, id: expect.any(String), source: "/clients/c1" }],
    });
    const receipt = { id: "x", lane: "normal", position: ["e1", 7], duplicate: false };
    net.socket.last("publish").ack?.({ ok: true, results: [receipt] });
    await expect(published).resolves.toEqual([receipt]);
  });

  it("lets a critical event overtake in the offline queue", async () => {
    const client = net.client();
    void client.publish("s", { type: "calm", data: 1 });
    void client.publish("s", { type: "alarm", data: 1, priority: "critical" });
    net.up();
    expect(net.socket.last("publish").args[0]).toMatchObject({ events: [{ type: "alarm" }] });
  });

  it("rejects where the answer isn't one of ours", async () => {
    const client = net.client();
    net.up();
    const published = client.publish("s", { type: "t", data: 1 });
    net.socket.last("publish").ack?.(undefined);
    await expect(published).rejects.toMatchObject({ code: "not_steadcast" });
  });
});

describe("metrics", () => {
  it("has the specification's names and units", async () => {
    const client = net.client();
    net.up();
    await pass(2_000);
    net.socket.receive("ping", { time: 1, heads: {} });
    await pass(500);
    void client.emitWithRetry("e", 1);
    expect(client.getConnectionMetrics()).toMatchObject({
      isConnected: true,
      uptime: 2.5,
      lastPing: 0.5,
      queuedEvents: 0,
      pendingEmissions: 1,
      retryAttempts: 0,
      disconnects: 0,
      disconnectedFor: 0,
    });
  });

  it("sums what subscriptions counted, those that ended included", () => {
    const client = net.client();
    const subscription = client.subscribe("s", { from: "start" });
    net.up();
    net.socket.last("subscribe").ack?.(lanes({ head: ["e1", 2], behind: 2 }));
    net.socket.receive("batch", batch(0, 2)).receive("batch", batch(0, 2));
    subscription.unsubscribe();
    expect(client.getConnectionMetrics()).toMatchObject({ replayed: 2, duplicatesDropped: 2 });
  });

  it("counts what isn't of the protocol's form, and lives on", () => {
    const client = net.client();
    net.up();
    for (const bad of [null, 7, { stream: "s" }, { ...batch(0, 1), events: [event(5)] }]) {
      net.socket.receive("batch", bad);
    }
    net.socket.receive("goaway", {}).receive("ping", {}).receive("error", "x");
    expect(client.getConnectionMetrics().malformed).toBe(7);
  });

  it("speaks nothing of ours to a server of another version", async () => {
    const client = net.client();
    client.subscribe("s");
    net.socket.accept().welcome(2);
    await pass(2_000);
    expect(client.snapshot().welcomed).toBe(false);
    expect(net.socket.sent).toEqual([]);
  });

  it("gives one snapshot until something changed, and tells changes once a microtask", async () => {
    const client = net.client();
    const changed = vi.fn();
    const stop = client.onChange(changed);
    expect(client.snapshot()).toBe(client.snapshot());
    net.up();
    await pass(0);
    expect(changed).toHaveBeenCalledTimes(1);
    stop();
    net.socket.drop();
    await pass(0);
    expect(changed).toHaveBeenCalledTimes(1);
  });
});
