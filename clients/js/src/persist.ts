/**
 * What outlives a reload: cursors and the offline queue, in IndexedDB.
 *
 * A slot belongs to one tab. Its name stands in sessionStorage, which a reload keeps and a duplicated tab copies,
 * and a Web Lock of that name says who owns it: a tab that can't get the lock takes a slot of its own.
 */

import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import { SteadcastError } from "./errors.js";
import type { Emission } from "./outbox.js";
import { type Cursors, parseCursors } from "./wire.js";

/** Where a subscription keeps its cursors. Bring your own to store them together with what events produced. */
export interface CursorStore {
  load(): Promise<Cursors>;
  /** Called one at a time, with the newest cursors, after the handlers ran. */
  save(cursors: Cursors): Promise<void>;
  /** Give the store to others; the kept cursors stay. */
  release(): void;
}

/** Where the offline queue is kept. */
export interface QueueStore {
  load(): Promise<Emission[]>;
  put(emission: Emission): Promise<void>;
  remove(id: string): Promise<void>;
  release(): void;
}

/** The browser's parts that keeping needs. */
export interface KeepingPlace {
  // No types of the DOM: a program for Node that checks its libraries has none.
  readonly session: {
    getItem(key: string): string | null;
    setItem(key: string, value: string): void;
  };
  readonly locks: {
    /** `signal` is an `AbortSignal`. */
    request(
      name: string,
      options: { readonly signal?: object },
      held: () => Promise<void>,
    ): Promise<unknown>;
  };
  /** Wall time in milliseconds: what is older than `maxAge` is swept. */
  readonly now: () => number;
  readonly uuid: () => string;
}

/** What was not touched for so long is swept, where no tab has its slot: the tab was closed, not reloaded. */
export const MAX_AGE = 7 * 24 * 3_600_000;
/** A page that is being reloaded may hold its lock a moment longer; a duplicated tab holds it for good. */
export const LOCK_WAIT = 1_000;
/** Whoever has a slot's lock for longer is a tab that is there. */
const SWEEP_WAIT = 100;
/** A browser's database that doesn't answer for so long keeps nothing: a frozen tab may hold it up for hours. */
export const OPEN_WAIT = 10_000;

interface Kept {
  readonly slot: string;
  readonly id: string;
  readonly order: number;
  readonly emission: Emission;
  readonly at: number;
}

interface Schema extends DBSchema {
  cursors: { key: string; value: { slot: string; cursors: unknown; at: number } };
  queue: {
    key: [string, string];
    value: Kept;
    indexes: { slot: string };
  };
}

type Database = IDBPDatabase<Schema>;

/** The browser's keeping place, or undefined where a part of it is missing (Node, a sandboxed frame). */
export function browserPlace(uuid: () => string): KeepingPlace | undefined {
  try {
    if (!globalThis.indexedDB || !globalThis.sessionStorage || !navigator.locks) return undefined;
    return { session: sessionStorage, locks: navigator.locks, now: () => Date.now(), uuid };
  } catch {
    // Reading sessionStorage throws in a sandboxed frame; the caller tells that nothing is kept.
    return undefined;
  }
}

async function open(place: KeepingPlace): Promise<Database> {
  const opening = openAndSweep(place);
  let patience: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new SteadcastError("the browser's database doesn't answer", "not_kept");
    patience = setTimeout(() => reject(error), OPEN_WAIT);
  });
  try {
    return await Promise.race([opening, late]);
  } catch (error) {
    // One that opens after all is nobody's.
    void opening.then((database) => database.close()).catch(() => undefined);
    throw error;
  } finally {
    clearTimeout(patience);
  }
}

async function openAndSweep(place: KeepingPlace): Promise<Database> {
  const database = await openDB<Schema>("steadcast", 1, {
    upgrade(fresh) {
      fresh.createObjectStore("cursors", { keyPath: "slot" });
      fresh.createObjectStore("queue", { keyPath: ["slot", "id"] }).createIndex("slot", "slot");
    },
    blocking(_current, _blocked, event) {
      // A newer page wants to migrate: our next write fails and is told.
      (event.target as IDBDatabase).close();
    },
  });
  await sweep(database, place);
  return database;
}

/** Delete what is old, but nothing of a tab that is there: its streams may just have been silent for so long. */
async function sweep(database: Database, place: KeepingPlace): Promise<void> {
  const before = place.now() - MAX_AGE;
  const kept = [...(await database.getAll("cursors")), ...(await database.getAll("queue"))];
  const slots = new Set(kept.filter(({ at }) => at < before).map(({ slot }) => slot));
  const all = [...slots].map(async (slot) => {
    const release = await hold(place, `steadcast:${slot}`, SWEEP_WAIT);
    try {
      if (release) await deleteOld(database, slot, before);
    } finally {
      release?.();
    }
  });
  await Promise.all(all);
}

async function deleteOld(database: Database, slot: string, before: number): Promise<void> {
  const transaction = database.transaction(["cursors", "queue"], "readwrite");
  const mine = { cursors: slot, queue: IDBKeyRange.bound([slot, ""], [slot, []]) };
  for (const name of ["cursors", "queue"] as const) {
    let cursor = await transaction.objectStore(name).openCursor(mine[name]);
    while (cursor) {
      if (cursor.value.at < before) await cursor.delete();
      cursor = await cursor.continue();
    }
  }
  await transaction.done;
}

/** Hold a lock until `release` is called; undefined if another tab has it. */
async function hold(
  place: KeepingPlace,
  name: string,
  wait: number,
): Promise<(() => void) | undefined> {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), wait);
  return new Promise((resolve) => {
    place.locks
      .request(name, { signal: patience.signal }, () => {
        clearTimeout(timer);
        return new Promise<void>((release) => resolve(release));
      })
      .catch(() => resolve(undefined));
  });
}

interface Slot {
  readonly name: string;
  readonly release: () => void;
}

async function claim(place: KeepingPlace, key: string, wait: number): Promise<Slot> {
  const entry = `steadcast:${key}`;
  const kept = place.session.getItem(entry);
  if (kept !== null) {
    const release = await hold(place, `steadcast:${kept}`, wait);
    if (release) return { name: kept, release };
  }
  const name = `${key}:${place.uuid()}`;
  const release = await hold(place, `steadcast:${name}`, wait);
  place.session.setItem(entry, name);
  return { name, release: release ?? (() => undefined) };
}

/** Claim a slot and open the database for it; a slot that can't be used is given back. */
async function claimAndOpen(
  place: KeepingPlace,
  key: string,
  wait: number,
): Promise<{ slot: Slot; database: Database }> {
  const slot = await claim(place, key, wait);
  try {
    return { slot, database: await open(place) };
  } catch (error) {
    slot.release();
    throw error;
  }
}

/** What a client keeps over a reload of its tab, in a place of its own or the browser's. */
export class Keeping {
  constructor(
    private readonly own: KeepingPlace | undefined,
    private readonly uuid: () => string,
  ) {}

  /** Rejects where nothing can be kept, or the browser refuses. */
  async cursors(key: string): Promise<CursorStore> {
    return keepCursors(this.place(), key);
  }

  /** Rejects as `cursors` does. */
  async queue(name: boolean | string): Promise<QueueStore> {
    return keepQueue(this.place(), name === true ? "default" : String(name));
  }

  private place(): KeepingPlace {
    const place = this.own ?? browserPlace(this.uuid);
    if (!place) throw new SteadcastError("nothing can be kept here", "not_kept");
    return place;
  }
}

/** Keep the cursors of a stream over a reload of this tab. Rejects where the browser refuses. */
export async function keepCursors(
  place: KeepingPlace,
  key: string,
  lockWait = LOCK_WAIT,
): Promise<CursorStore> {
  const { slot, database } = await claimAndOpen(place, `cursor:${key}`, lockWait);
  return {
    load: async () => parseCursors((await database.get("cursors", slot.name))?.cursors),
    save: async (cursors) => {
      await database.put("cursors", { slot: slot.name, cursors, at: place.now() });
    },
    release: () => {
      database.close();
      slot.release();
    },
  };
}

/**
 * Take over what tabs have left that are gone, closed or crashed: behind what is kept here, each whole and in its
 * order. Whoever holds the lock of a slot is there, and sends for itself.
 */
async function takeOver(database: Database, place: KeepingPlace, key: string, mine: string) {
  const all = await database.getAllKeysFromIndex("queue", "slot");
  const names = [...new Set(all.map(([slot]) => slot))].filter(
    (slot) => slot !== mine && slot.slice(0, slot.lastIndexOf(":")) === key,
  );
  const locks = names.map((slot) => hold(place, `steadcast:${slot}`, SWEEP_WAIT));
  const held = await Promise.all(locks);
  try {
    await move(
      database,
      names.filter((_, index) => held[index]),
      mine,
    );
  } finally {
    for (const release of held) release?.();
  }
}

async function move(database: Database, from: readonly string[], to: string): Promise<void> {
  if (from.length === 0) return;
  const transaction = database.transaction("queue", "readwrite");
  const { store } = transaction;
  let order = last(await store.index("slot").getAll(to));
  const queues = await Promise.all(from.map((slot) => store.index("slot").getAll(slot)));
  const began = (queue: readonly Kept[]) => Math.min(...queue.map(({ at }) => at));
  const writes: Promise<unknown>[] = [transaction.done];
  for (const queue of queues.sort((a, b) => began(a) - began(b))) {
    for (const kept of queue.sort((a, b) => a.order - b.order)) {
      order += 1;
      writes.push(store.delete([kept.slot, kept.id]), store.put({ ...kept, slot: to, order }));
    }
  }
  await Promise.all(writes);
}

function last(queue: readonly Kept[]): number {
  return queue.reduce((highest, { order }) => Math.max(highest, order), 0);
}

/**
 * Keep the offline queue over a reload of this tab, and for the next one where this one is closed or crashes.
 * Rejects where the browser refuses.
 */
export async function keepQueue(
  place: KeepingPlace,
  key: string,
  lockWait = LOCK_WAIT,
): Promise<QueueStore> {
  const { slot, database } = await claimAndOpen(place, `queue:${key}`, lockWait);
  const release = () => {
    database.close();
    slot.release();
  };
  const kept = await takeOver(database, place, `queue:${key}`, slot.name)
    .then(() => database.getAllFromIndex("queue", "slot", slot.name))
    .catch((error: unknown) => {
      release();
      throw error;
    });
  let order = last(kept);
  return {
    load: async () => kept.sort((a, b) => a.order - b.order).map(({ emission }) => emission),
    put: async (emission) => {
      order += 1;
      await database.put("queue", {
        slot: slot.name,
        id: emission.id,
        order,
        emission,
        at: place.now(),
      });
    },
    remove: async (id) => {
      await database.delete("queue", [slot.name, id]);
    },
    release,
  };
}

/** Saves the newest cursors, one write at a time; those that came meanwhile go together into the next. */
export class CursorKeeper {
  saved = 0;
  private next: Cursors | undefined;
  private writing: Promise<void> | undefined;
  private released = false;

  constructor(
    private readonly store: CursorStore,
    private readonly onFailure: (error: unknown) => void,
  ) {}

  save(cursors: Cursors): void {
    if (this.released) return;
    this.next = cursors;
    this.writing ??= this.write();
  }

  /** Wait for what was handed in, then give the store back. */
  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    await this.writing;
    this.store.release();
  }

  private async write(): Promise<void> {
    while (this.next) {
      const cursors = this.next;
      this.next = undefined;
      try {
        await this.store.save(cursors);
        this.saved += 1;
      } catch (error) {
        this.onFailure(error);
      }
    }
    this.writing = undefined;
  }
}
