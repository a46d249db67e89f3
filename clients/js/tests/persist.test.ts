import { IDBFactory } from "fake-indexeddb";
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Emission } from "../src/outbox.js";
import {
  CursorKeeper,
  type KeepingPlace,
  keepCursors,
  keepQueue,
  MAX_AGE,
  OPEN_WAIT,
} from "../src/persist.js";
import type { Cursors } from "../src/wire.js";
import { batch, FakeNet, lanes } from "./fake.js";
import "fake-indexeddb/auto";

/** The locks of one browser, shared by its tabs. */
class FakeLocks {
  private readonly held = new Map<string, Promise<unknown>>();

  get names(): readonly string[] {
    return [...this.held.keys()];
  }

  async request(
    name: string,
    options: { signal?: AbortSignal },
    use: () => Promise<unknown>,
  ): Promise<unknown> {
    while (this.held.has(name)) {
      const aborted = new Promise((resolve) => options.signal?.addEventListener("abort", resolve));
      await Promise.race([this.held.get(name), aborted]);
      if (options.signal?.aborted) throw new DOMException("patience is over", "AbortError");
    }
    const use_ = use();
    this.held.set(name, use_);
    await use_;
    this.held.delete(name);
    return undefined;
  }
}

let locks: FakeLocks;
let uuids = 0;
let wall = 0;

/** A tab; `from` is the tab that it was duplicated from, or that it is the reload of. */
function tab(from?: Tab): Tab {
  const items = new Map(from?.items);
  const session = {
    getItem: (key: string) => items.get(key) ?? null,
    setItem: (key: string, value: string) => void items.set(key, value),
  };
  const place: KeepingPlace = {
    session,
    locks: locks as unknown as LockManager,
    now: () => wall,
    uuid: () => `u${++uuids}`,
  };
  return { items, place };
}

interface Tab {
  readonly items: Map<string, string>;
  readonly place: KeepingPlace;
}

beforeEach(() => {
  globalThis.indexedDB = new IDBFactory();
  locks = new FakeLocks();
  wall = 1_000_000;
});

const CURSORS: Cursors = { normal: ["e1", 5, "n5"], critical: ["e1", 2] };

describe("kept cursors", () => {
  it("outlive a reload of the tab", async () => {
    const before = tab();
    const store = await keepCursors(before.place, "s");
    expect(await store.load()).toEqual({});
    await store.save(CURSORS);
    store.release();
    const after = await keepCursors(tab(before).place, "s");
    expect(await after.load()).toEqual(CURSORS);
  });

  it("aren't shared with a duplicated tab, which begins fresh and then keeps its own", async () => {
    const original = tab();
    const store = await keepCursors(original.place, "s");
    await store.save(CURSORS);
    const duplicate = tab(original);
    const own = await keepCursors(duplicate.place, "s", 20);
    expect(await own.load()).toEqual({});
    await own.save({ normal: ["e1", 99] });
    own.release();
    expect(await store.load()).toEqual(CURSORS);
    const reloaded = await keepCursors(tab(duplicate).place, "s", 20);
    expect(await reloaded.load()).toEqual({ normal: ["e1", 99] });
  });

  it("are waited for where the page that is being reloaded lets go a moment later", async () => {
    const before = tab();
    const store = await keepCursors(before.place, "s");
    await store.save(CURSORS);
    setTimeout(() => store.release(), 50);
    const after = await keepCursors(tab(before).place, "s", 2_000);
    expect(await after.load()).toEqual(CURSORS);
  });

  it("are kept apart by key", async () => {
    const { place } = tab();
    await (await keepCursors(place, "s")).save(CURSORS);
    expect(await (await keepCursors(place, "other")).load()).toEqual({});
  });

  it("are swept once no tab has touched them for seven days", async () => {
    const before = tab();
    const store = await keepCursors(before.place, "s");
    await store.save(CURSORS);
    store.release();
    wall += MAX_AGE + 1;
    (await keepCursors(tab().place, "s")).release();
    expect(await (await keepCursors(tab(before).place, "s")).load()).toEqual({});
  });

  it("are kept for a tab that is there, however long its stream was silent", async () => {
    const open = tab();
    const store = await keepCursors(open.place, "s");
    await store.save(CURSORS);
    wall += MAX_AGE + 1;
    (await keepCursors(tab().place, "s")).release();
    expect(await store.load()).toEqual(CURSORS);
    store.release();
    const reloaded = await keepCursors(tab(open).place, "s");
    expect(await reloaded.load()).toEqual(CURSORS);
    reloaded.release();
  });
});

function emission(id: string): Emission {
  return { id, event: "e", data: { id }, priority: "normal", maxRetries: 3, retryDelays: [1] };
}

describe("a kept queue", () => {
  it("outlives a reload in its order, without what was acked", async () => {
    const before = tab();
    const store = await keepQueue(before.place, "default");
    for (const id of ["b", "a", "c"]) await store.put(emission(id));
    await store.remove("a");
    store.release();
    const after = await keepQueue(tab(before).place, "default");
    expect(await after.load()).toEqual([emission("b"), emission("c")]);
    await after.put(emission("d"));
    after.release();
    const third = await keepQueue(tab(before).place, "default");
    expect((await third.load()).map(({ id }) => id)).toEqual(["b", "c", "d"]);
  });

  it("goes to the next tab where its own is gone, behind what that keeps, the oldest first", async () => {
    const gone = [];
    for (const [at, key, ids] of [
      [2, "default", ["c", "b"]],
      [1, "default", ["a"]],
      [0, "other", ["no"]],
      [0, "default:other", ["neither"]],
    ] as const) {
      wall = at;
      const store = await keepQueue(tab().place, key);
      for (const id of ids) await store.put(emission(id));
      gone.push(store);
    }
    for (const store of gone) store.release();
    const there = tab();
    const held = await keepQueue(there.place, "default");
    expect((await held.load()).map(({ id }) => id)).toEqual(["a", "c", "b"]);
    await held.put(emission("d"));
    const second = await keepQueue(tab().place, "default");
    expect(await second.load(), "the first is there").toEqual([]);
    held.release();
    const reloaded = await keepQueue(tab(there).place, "default");
    expect((await reloaded.load()).map(({ id }) => id)).toEqual(["a", "c", "b", "d"]);
  });

  it("goes to one of the tabs that come at the same time", async () => {
    const gone = await keepQueue(tab().place, "default");
    await gone.put(emission("a"));
    gone.release();
    const stores = await Promise.all([1, 2, 3].map(() => keepQueue(tab().place, "default")));
    const found = await Promise.all(stores.map((store) => store.load()));
    expect(found.flat().map(({ id }) => id)).toEqual(["a"]);
  });

  it("isn't shared with a duplicated tab", async () => {
    const original = tab();
    await (await keepQueue(original.place, "default")).put(emission("a"));
    expect(await (await keepQueue(tab(original).place, "default", 20)).load()).toEqual([]);
  });
});

describe("the keeper", () => {
  it("writes one at a time, and together what came meanwhile", async () => {
    const saved: Cursors[] = [];
    let finish: () => void = () => undefined;
    const save = (cursors: Cursors) => {
      saved.push(cursors);
      return new Promise<void>((resolve) => (finish = resolve));
    };
    const keeper = new CursorKeeper(
      { load: async () => ({}), save, release: () => undefined },
      () => {
        throw new Error("no failure is expected");
      },
    );
    for (const offset of [1, 2, 3]) keeper.save({ normal: ["e", offset] });
    expect(saved).toEqual([{ normal: ["e", 1] }]);
    finish();
    await vi.waitFor(() => expect(saved).toHaveLength(2));
    expect(saved[1]).toEqual({ normal: ["e", 3] });
  });

  it("tells a write that fails, and writes the next", async () => {
    const failures: unknown[] = [];
    const save = vi.fn().mockRejectedValueOnce(new Error("full")).mockResolvedValue(undefined);
    const store = { load: async () => ({}), save, release: () => undefined };
    const keeper = new CursorKeeper(store, (error) => failures.push(error));
    keeper.save({ normal: ["e", 1] });
    keeper.save({ normal: ["e", 2] });
    await vi.waitFor(() => expect(keeper.saved).toBe(1));
    expect(failures).toMatchObject([{ message: "full" }]);
  });
});

describe("a client that keeps", () => {
  it("resumes its cursor after a reload", async () => {
    const page = tab();
    const first = new FakeNet();
    const client = first.client({ place: page.place });
    const subscription = client.subscribe("s", { persist: true, from: "start" });
    await subscription.ready;
    first.up().last("subscribe").ack?.(lanes());
    first.socket.receive("batch", batch(0, 3));
    client.close();
    const second = new FakeNet();
    const again = second.client({ place: tab(page).place });
    await again.subscribe("s", { persist: true, from: "start" }).ready;
    second.up();
    expect(second.socket.last("subscribe").args[0]).toMatchObject({
      cursors: { normal: ["e1", 3, "n3"] },
    });
    again.close();
  });

  it("sends what was queued before a reload, first and under the same ids, and then forgets it", async () => {
    const page = tab();
    const client = new FakeNet("before").client({ place: page.place, persistQueue: true });
    const onFailure = vi.fn();
    const old = client.emitWithRetry("e", "old", { onFailure });
    await vi.waitFor(async () => expect(await kept()).toHaveLength(1));
    client.close();
    await expect(old).rejects.toMatchObject({ reason: "closed", kept: true });
    expect(onFailure, "it will be delivered").not.toHaveBeenCalled();

    const net = new FakeNet("after");
    const again = net.client({ place: tab(page).place, persistQueue: true, flushSpacing: 1 });
    net.up();
    void again.emitWithRetry("e", "new");
    await vi.waitFor(() => expect(net.socket.all("e")).toHaveLength(2));
    expect(net.socket.all("e").map(({ args }) => args[0])).toEqual(["old", "new"]);
    expect(net.socket.all("e")[0]?.args[1]).toEqual({ emission: "before-2" });
    for (const { ack } of net.socket.all("e")) ack?.("yes");
    await vi.waitFor(async () => expect(await kept()).toEqual([]));
    again.close();
  });

  it("leaves the kept queue to the next client where it is closed before it was read", async () => {
    const page = tab();
    const store = await keepQueue(page.place, "default");
    await store.put(emission("a"));
    store.release();
    new FakeNet("first").client({ place: page.place, persistQueue: true }).close();
    await vi.waitFor(() => expect(locks.names).toEqual([]), 20_000);
    const net = new FakeNet("second");
    const client = net.client({ place: page.place, persistQueue: true });
    net.up();
    await vi.waitFor(() => expect(net.socket.all("e")).toHaveLength(1), 20_000);
    expect(net.socket.all("e")[0]?.args).toEqual([{ id: "a" }, { emission: "a" }]);
    client.close();
  }, 60_000);

  it("works without keeping, in words, where the browser's database doesn't answer", async () => {
    // A tab that never lets go holds up who wants to delete the database, and who opens it behind that.
    const asked = indexedDB.open("steadcast", 1);
    await new Promise((resolve) => (asked.onsuccess = resolve));
    indexedDB.deleteDatabase("steadcast");
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const net = new FakeNet();
    const client = net.client({ place: tab().place, persistQueue: true });
    const onTold = vi.fn();
    client.subscribe("s", { persist: true, onTold });
    void client.emitWithRetry("e", 1);
    net.up();
    await vi.advanceTimersByTimeAsync(OPEN_WAIT);
    expect(net.socket.all("subscribe")).toHaveLength(1);
    expect(net.socket.all("e")).toHaveLength(1);
    expect(onTold).toHaveBeenCalledWith({ kind: "not_kept", error: expect.any(Error) });
    expect(client.getConnectionMetrics().keepFailures).toBe(1);
    expect(locks.names).toEqual([]);
    net.socket.last("e").ack?.(1);
    client.close();
    vi.useRealTimers();
    asked.result.close();
    await new Promise((resolve) => (indexedDB.deleteDatabase("steadcast").onsuccess = resolve));
  });

  it("works without keeping where nothing can be kept, and counts that", async () => {
    const net = new FakeNet();
    const client = net.client({ persistQueue: true });
    net.up();
    void client.emitWithRetry("e", 1);
    await vi.waitFor(() => expect(net.socket.all("e")).toHaveLength(1));
    expect(client.getConnectionMetrics().keepFailures).toBe(1);
    client.close();
  });
});

/** What the kept queue holds; looked at without making the database. */
async function kept(): Promise<unknown[]> {
  return new Promise((resolve) => {
    const open = indexedDB.open("steadcast");
    open.onupgradeneeded = () => open.transaction?.abort();
    open.onerror = () => resolve([]);
    open.onsuccess = () => {
      const all = open.result.transaction("queue").objectStore("queue").getAll();
      open.result.close();
      all.onsuccess = () => resolve(all.result);
    };
  });
}
