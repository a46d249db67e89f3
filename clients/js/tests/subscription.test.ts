import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { InvalidRequest } from "../src/errors.js";
import type { CursorStore } from "../src/persist.js";
import type { Notice } from "../src/subscription.js";
import type { Cursors, StreamEvent } from "../src/wire.js";
import { batch, FakeNet, lanes, pass } from "./fake.js";

let net: FakeNet;

beforeEach(() => {
  vi.useFakeTimers();
  net = new FakeNet();
});

afterEach(() => {
  vi.useRealTimers();
  expect(net.reported).toEqual([]);
});

/** A subscription that is answered, and what it applied and was told. */
function followed(options: Parameters<ReturnType<FakeNet["client"]>["subscribe"]>[1] = {}) {
  const client = net.client();
  const applied: string[] = [];
  const told: Notice[] = [];
  const subscription = client.subscribe("s", {
    onEvent: ({ id }) => applied.push(id),
    onTold: (notice) => told.push(notice),
    ...options,
  });
  net.up();
  net.socket.last("subscribe").ack?.(lanes());
  return { client, subscription, applied, told };
}

describe("subscribing", () => {
  it("asks after the welcome, with where to begin", () => {
    const client = net.client();
    client.subscribe("s", { from: { last: 500 } });
    net.socket.accept();
    expect(net.socket.all("subscribe")).toEqual([]);
    net.socket.welcome();
    expect(net.socket.last("subscribe").args).toEqual([
      { stream: "s", cursors: {}, from: { last: 500 } },
    ]);
  });

  it("asks at once on a connection that is there, and again from its cursors on the next", async () => {
    const client = net.client();
    net.up();
    client.subscribe("s");
    net.socket.last("subscribe").ack?.(lanes());
    net.socket.receive("batch", batch(0, 3));
    net.socket.drop();
    await pass(1_000);
    net.up();
    expect(net.socket.last("subscribe").args[0]).toMatchObject({
      cursors: { critical: ["e1", 0], normal: ["e1", 3, "n3"] },
    });
  });

  it("begins with cursors that you kept yourself", () => {
    net.client().subscribe("s", { cursors: { normal: ["e1", 9, "n9"] } });
    net.up();
    expect(net.socket.last("subscribe").args[0]).toMatchObject({
      cursors: { normal: ["e1", 9, "n9"] },
    });
  });

  it("refuses a second subscription of one stream, and names that no stream has", () => {
    const client = net.client();
    const subscription = client.subscribe("s");
    expect(() => client.subscribe("s")).toThrow(InvalidRequest);
    expect(() => client.subscribe("-bad-")).toThrow(InvalidRequest);
    subscription.unsubscribe();
    expect(() => client.subscribe("s")).not.toThrow();
  });

  it("says goodbye once, and hears nothing after it", () => {
    const { subscription, applied } = followed();
    subscription.unsubscribe();
    subscription.unsubscribe();
    expect(net.socket.all("unsubscribe").map(({ args }) => args)).toEqual([[{ stream: "s" }]]);
    net.socket.receive("batch", batch(0, 1));
    expect(applied).toEqual([]);
    expect(subscription.snapshot().state).toBe("closed");
  });

  it("asks again where no answer came, and where the answer isn't one", async () => {
    const client = net.client();
    client.subscribe("s");
    net.up();
    net.socket.last("subscribe").ack?.("what?");
    await pass(10_000);
    expect(net.socket.all("subscribe")).toHaveLength(2);
  });

  it("tells a refusal for good, and waits out a temporary one", async () => {
    const told: Notice[] = [];
    const client = net.client();
    const subscription = client.subscribe("s", { onTold: (notice) => told.push(notice) });
    net.up();
    const away = { code: "engine_unavailable", temporary: true, retry_after: 3 };
    net.socket.last("subscribe").ack?.({ ok: false, error: away });
    await pass(3_000);
    expect(net.socket.all("subscribe")).toHaveLength(2);
    const error = { code: "forbidden", temporary: false, message: "this token may not read" };
    net.socket.last("subscribe").ack?.({ ok: false, error });
    expect(told).toEqual([
      { kind: "refused", code: "forbidden", message: "this token may not read" },
    ]);
    expect(subscription.snapshot().state).toBe("refused");
  });
});

describe("state and progress", () => {
  it("goes from offline over replaying to live", async () => {
    const client = net.client();
    const subscription = client.subscribe("s", { from: "start" });
    expect(subscription.snapshot()).toMatchObject({ state: "offline", progress: null });
    net.up();
    expect(subscription.snapshot()).toMatchObject({
      state: "replaying",
      progress: { done: 0, total: null },
    });
    net.socket.last("subscribe").ack?.(lanes({ head: ["e1", 4], behind: 4 }));
    net.socket.receive("batch", batch(0, 3));
    expect(subscription.snapshot()).toMatchObject({
      state: "replaying",
      progress: { done: 3, total: 4 },
    });
    net.socket.receive("batch", batch(3, 4));
    expect(subscription.snapshot()).toMatchObject({
      state: "live",
      progress: null,
      counts: { applied: 4, replayed: 4 },
    });
    net.socket.drop();
    expect(subscription.snapshot().state).toBe("offline");
  });

  it("gives one snapshot until something changed, and tells of a whole batch once", async () => {
    const { subscription } = followed();
    await pass(0);
    expect(subscription.snapshot()).toBe(subscription.snapshot());
    const changed = vi.fn();
    const stop = subscription.onChange(changed);
    net.socket.receive("batch", batch(0, 50));
    await pass(0);
    expect(changed).toHaveBeenCalledTimes(1);
    stop();
    net.socket.receive("batch", batch(50, 51));
    await pass(0);
    expect(changed).toHaveBeenCalledTimes(1);
  });

  it("acks by count, by time and at once for a duplicate", async () => {
    followed();
    net.socket.receive("batch", batch(0, 64));
    expect(net.socket.all("ack").map(({ args }) => args[0])).toMatchObject([{ offset: 64 }]);
    net.socket.receive("batch", batch(64, 65));
    await pass(1_000);
    expect(net.socket.last("ack").args).toEqual([
      { stream: "s", lane: "normal", epoch: "e1", offset: 65 },
    ]);
    net.socket.receive("batch", batch(64, 65));
    expect(net.socket.all("ack")).toHaveLength(3);
  });

  it("repairs a lost tail that a ping tells", async () => {
    followed();
    net.socket.receive("ping", { time: 1, heads: { s: { normal: ["e1", 2] } } });
    await pass(5_000);
    expect(net.socket.all("subscribe")).toHaveLength(2);
  });

  it("tells trimmed with its range, and reset", async () => {
    const { told } = followed();
    net.socket.receive("batch", batch(5, 6));
    const trimmed = lanes({ status: "trimmed", cursor: ["e1", 5], head: ["e1", 6], lost: [1, 5] });
    net.socket.last("subscribe").ack?.(trimmed);
    net.socket.receive("batch", batch(0, 1, "normal", "e2"));
    net.socket.last("subscribe").ack?.(lanes({ status: "reset", cursor: ["e2", 0] }));
    expect(told).toEqual([
      { kind: "trimmed", lane: "normal", lost: [1, 5], maybe: false },
      { kind: "reset", lane: "normal" },
    ]);
  });
});

describe("handlers", () => {
  it("wait for each other within a lane, and not for the other lane", async () => {
    const running: string[] = [];
    let finish: () => void = () => undefined;
    const { subscription } = followed({
      onEvent: (event: StreamEvent) => {
        running.push(event.id);
        return event.priority === "normal"
          ? new Promise<void>((resolve) => (finish = resolve))
          : undefined;
      },
    });
    net.socket.receive("batch", batch(0, 2)).receive("batch", batch(0, 2, "critical"));
    expect(running).toEqual(["n1", "c1", "c2"]);
    expect(subscription.snapshot().cursors.normal?.[1]).toBe(0);
    finish();
    await pass(0);
    expect(running).toEqual(["n1", "c1", "c2", "n2"]);
    expect(subscription.snapshot().cursors.normal).toEqual(["e1", 1, "n1"]);
  });

  it("are told their place", () => {
    const onEvent = vi.fn();
    followed({ onEvent });
    net.socket.receive("batch", batch(0, 1));
    expect(onEvent.mock.calls[0]?.[1]).toEqual({ stream: "s", lane: "normal", epoch: "e1" });
  });

  it("that fail three times are passed over with their error, and the next ones go on", async () => {
    const onEvent = vi.fn(({ id }: StreamEvent) => {
      if (id === "n2") throw new Error("bad n2");
    });
    const { told, subscription } = followed({ onEvent });
    net.socket.receive("batch", batch(0, 3));
    expect(onEvent.mock.calls.map(([{ id }]) => id)).toEqual(["n1", "n2", "n2", "n2", "n3"]);
    expect(told).toMatchObject([
      { kind: "passed_over", lane: "normal", offset: 2, id: "n2", error: { message: "bad n2" } },
    ]);
    expect(subscription.snapshot().counts).toMatchObject({ applied: 2, passedOver: 1 });
  });

  it("that reject are tried again as well", async () => {
    const onEvent = vi.fn().mockRejectedValueOnce(new Error("once")).mockResolvedValue(undefined);
    const { subscription } = followed({ onEvent });
    net.socket.receive("batch", batch(0, 1));
    await pass(0);
    expect(onEvent).toHaveBeenCalledTimes(2);
    expect(subscription.snapshot().counts.applied).toBe(1);
  });

  it("that are running at a cut finish, and what they applied isn't asked for again", async () => {
    let finish: () => void = () => undefined;
    followed({ onEvent: () => new Promise<void>((resolve) => (finish = resolve)) });
    net.socket.receive("batch", batch(0, 1));
    net.socket.drop();
    finish();
    await pass(1_000);
    net.up();
    expect(net.socket.last("subscribe").args[0]).toMatchObject({
      cursors: { normal: ["e1", 1, "n1"] },
    });
  });

  it("that throw in onTold are reported, and keep nothing from going on", () => {
    const { applied } = followed({
      onTold: () => {
        throw new Error("mine");
      },
    });
    net.socket.receive("batch", batch(0, 1, "normal", "e2"));
    net.socket.last("subscribe").ack?.(lanes({ status: "reset", cursor: ["e2", 0] }));
    net.socket.receive("batch", batch(0, 1, "normal", "e2"));
    expect(applied).toEqual(["n1"]);
    expect(net.reported.splice(0)).toMatchObject([{ message: "mine" }]);
  });
});

describe("onBatch", () => {
  it("gets what a batch holds at once, and moves the cursor over all of it", () => {
    const onBatch = vi.fn();
    const { subscription } = followed({ onBatch });
    net.socket.receive("batch", batch(0, 3));
    expect(onBatch.mock.calls.map(([events]) => events.map(({ id }: StreamEvent) => id))).toEqual([
      ["n1", "n2", "n3"],
    ]);
    expect(subscription.snapshot().cursors.normal).toEqual(["e1", 3, "n3"]);
  });

  it("that fails gets the events one by one, so that only the bad one is passed over", async () => {
    const seen: string[] = [];
    const onBatch = async (events: readonly StreamEvent[]) => {
      seen.push(events.map(({ id }) => id).join("+"));
      if (events.some(({ id }) => id === "n2")) throw new Error("n2");
    };
    const { told, subscription } = followed({ onBatch });
    net.socket.receive("batch", batch(0, 3)).receive("batch", batch(3, 5));
    await pass(0);
    expect(seen).toEqual(["n1+n2+n3", "n1", "n2", "n2", "n2", "n3", "n4+n5"]);
    expect(told).toMatchObject([{ kind: "passed_over", id: "n2" }]);
    expect(subscription.snapshot().counts).toMatchObject({ applied: 4, passedOver: 1 });
  });

  it("whose batch a reset took away goes on with the new log", async () => {
    const seen: string[] = [];
    let end: (error?: Error) => void = () => undefined;
    const onBatch = (events: readonly StreamEvent[], { epoch }: { epoch: string }) => {
      seen.push(`${epoch}:${events.length}`);
      if (epoch !== "e1") return undefined;
      return new Promise<void>((resolve, reject) => {
        end = (error) => (error ? reject(error) : resolve());
      });
    };
    const { subscription } = followed({ onBatch });
    net.socket.receive("batch", batch(0, 3));
    net.socket.receive("ping", { time: 1, heads: { s: { normal: ["e2", 2] } } });
    net.socket
      .last("subscribe")
      .ack?.(lanes({ status: "reset", cursor: ["e2", 0], head: ["e2", 2], behind: 2 }));
    net.socket.receive("batch", batch(0, 2, "normal", "e2"));
    expect(seen).toEqual(["e1:3"]);
    end(new Error("too late"));
    await pass(0);
    expect(seen).toEqual(["e1:3", "e2:2"]);
    expect(subscription.snapshot().cursors.normal).toEqual(["e2", 2, "n2"]);
  });
});

describe("persist with a store of your own", () => {
  function storeOf(kept: Cursors): CursorStore & { saved: Cursors[]; released: number } {
    const saved: Cursors[] = [];
    return {
      saved,
      released: 0,
      load: async () => kept,
      save: async (cursors) => void saved.push(cursors),
      release() {
        this.released += 1;
      },
    };
  }

  it("resumes from what is kept, and keeps what was applied, after the handler", async () => {
    const store = storeOf({ normal: ["e1", 5, "n5"] });
    const client = net.client();
    net.up();
    const subscription = client.subscribe("s", { persist: store });
    expect(net.socket.all("subscribe")).toEqual([]);
    await subscription.ready;
    expect(net.socket.last("subscribe").args[0]).toMatchObject({
      cursors: { normal: ["e1", 5, "n5"] },
    });
    net.socket.last("subscribe").ack?.(lanes({ status: "resumed", cursor: ["e1", 5] }));
    net.socket.receive("batch", batch(5, 7));
    await pass(0);
    expect(store.saved.at(-1)).toMatchObject({ normal: ["e1", 7, "n7"] });
    subscription.unsubscribe();
    await pass(0);
    expect(store.released).toBe(1);
  });

  it("keeps what the handler applied that left", async () => {
    const store = storeOf({});
    const client = net.client();
    net.up();
    const onEvent = ({ id }: StreamEvent) => id === "n2" && subscription.unsubscribe();
    const subscription = client.subscribe("s", { persist: store, onEvent });
    await subscription.ready;
    net.socket.last("subscribe").ack?.(lanes());
    net.socket.receive("batch", batch(0, 3));
    await pass(0);
    expect(store.saved.at(-1)).toMatchObject({ normal: ["e1", 2, "n2"] });
    expect(store.released).toBe(1);
  });

  it("waits with giving the store back for a handler that is at work, and not for one that hangs", async () => {
    for (const [takes, offset] of [
      [300, 1],
      [Number.POSITIVE_INFINITY, 0],
    ] as const) {
      const store = storeOf({});
      const client = net.client();
      net.up();
      const onEvent = () => new Promise((done) => takes === 300 && setTimeout(done, takes));
      const subscription = client.subscribe("s", { persist: store, onEvent });
      await subscription.ready;
      net.socket.last("subscribe").ack?.(lanes());
      net.socket.receive("batch", batch(0, 3));
      subscription.unsubscribe();
      await pass(200);
      expect(store.released).toBe(0);
      await pass(400);
      expect(store.saved.at(-1)?.normal?.[1]).toBe(offset);
      expect(store.released).toBe(1);
      await pass(1_000);
      expect(store.released).toBe(1);
    }
  });

  it("begins fresh and says not_kept where the store fails", async () => {
    const told: Notice[] = [];
    const store = { ...storeOf({}), load: () => Promise.reject(new Error("broken")) };
    const client = net.client();
    net.up();
    client.subscribe("s", { persist: store, onTold: (notice) => told.push(notice) });
    await pass(0);
    expect(told).toMatchObject([{ kind: "not_kept", error: { message: "broken" } }]);
    expect(net.socket.all("subscribe")).toHaveLength(1);
  });

  it("says not_kept where there is nothing to keep in, like Node", async () => {
    const told: Notice[] = [];
    const client = net.client();
    client.subscribe("s", { persist: true, onTold: (notice) => told.push(notice) });
    await pass(0);
    expect(told).toMatchObject([{ kind: "not_kept", error: { code: "not_kept" } }]);
  });

  it("gives the store back where the user left while it was opened", async () => {
    const store = storeOf({});
    const client = net.client();
    net.up();
    client.subscribe("s", { persist: store }).unsubscribe();
    await pass(0);
    expect(store.released).toBe(1);
    expect(net.socket.all("subscribe")).toEqual([]);
  });
});
