import { describe, expect, it } from "vitest";
import { type Emission, Outbox, type OutboxEffect } from "../src/outbox.js";
import { Random, seeds } from "./random.js";

function emission(id: string, more: Partial<Emission> = {}): Emission {
  return {
    id,
    event: "e",
    data: id,
    priority: "normal",
    maxRetries: 3,
    retryDelays: [1_000, 2_000, 4_000],
    ...more,
  };
}

function ids(effects: readonly OutboxEffect[], kind: OutboxEffect["kind"]): string[] {
  return effects.filter((each) => each.kind === kind).map((each) => each.emission.id);
}

/** Meets every deadline up to `until`; gives the effects with their times. */
function run(outbox: Outbox, until: number): [number, OutboxEffect][] {
  const seen: [number, OutboxEffect][] = [];
  for (
    let at = outbox.nextDeadline();
    at !== undefined && at <= until;
    at = outbox.nextDeadline()
  ) {
    for (const effect of outbox.handleTimeout(at)) seen.push([at, effect]);
  }
  return seen;
}

function sends(seen: readonly [number, OutboxEffect][]): [number, string][] {
  return seen
    .filter(([, each]) => each.kind === "send")
    .map(([at, each]) => [at, each.emission.id]);
}

function serialOf(effects: readonly OutboxEffect[]): number {
  const sent = effects.find((each) => each.kind === "send");
  if (sent?.kind !== "send") throw new Error("nothing was sent");
  return sent.serial;
}

/** A connection to a server that answers what came within 100 ms, or nothing where "poison" was among it. */
function live(outbox: Outbox, from: number, over: Map<string, string>): void {
  const sent: [id: string, serial: number][] = [];
  const note = (effects: readonly OutboxEffect[]) => {
    for (const each of effects) {
      if (each.kind === "send") sent.push([each.emission.id, each.serial]);
      else over.set(each.emission.id, each.kind === "failed" ? each.reason : each.kind);
    }
  };
  note(outbox.connected(from, true));
  for (let now = from; now < from + 100; now += 10) note(outbox.handleTimeout(now));
  const answered = sent.some(([id]) => id === "poison") ? [] : [...sent];
  for (const [id, serial] of answered) note(outbox.acked(from + 100, id, serial, "yes"));
  outbox.disconnected();
}

const AWAY = { code: "unavailable", temporary: true, message: "" };
const NEVER = { code: "invalid_event", temporary: false, message: "" };

describe("outbox online", () => {
  it("sends at once, and is done with the ack", () => {
    const outbox = new Outbox();
    outbox.connected(0, true);
    const sent = outbox.accept(0, emission("a"));
    expect(sent).toMatchObject([{ kind: "send", withId: true }]);
    expect(outbox.pending).toBe(1);
    expect(outbox.acked(5, "a", serialOf(sent), "yes")).toMatchObject([
      { kind: "delivered", answer: "yes" },
    ]);
    expect(outbox.nextDeadline()).toBeUndefined();
  });

  it("retries after 1, 2 and 4 s and then fails as max_retries", () => {
    const outbox = new Outbox({ ackTimeout: 100 });
    outbox.connected(0, false);
    outbox.accept(0, emission("a"));
    const seen = run(outbox, 60_000);
    expect(sends(seen)).toEqual([
      [1_100, "a"],
      [3_200, "a"],
      [7_300, "a"],
    ]);
    expect(seen.at(-1)).toMatchObject([7_400, { kind: "failed", reason: "max_retries" }]);
    expect(outbox.counts).toMatchObject({ retries: 3, failed: { max_retries: 1 } });
  });

  it("repeats the last delay where there are more retries than delays", () => {
    const outbox = new Outbox({ ackTimeout: 1 });
    outbox.connected(0, false);
    outbox.accept(0, emission("a", { maxRetries: 3, retryDelays: [10] }));
    expect(sends(run(outbox, 1_000)).map(([at]) => at)).toEqual([11, 22, 33]);
  });

  it("fails at once on a permanent refusal, with the server's code", () => {
    const outbox = new Outbox();
    outbox.connected(0, true);
    const serial = serialOf(outbox.accept(0, emission("a")));
    expect(outbox.acked(1, "a", serial, undefined, NEVER)).toMatchObject([
      { kind: "failed", reason: "invalid_event", refusal: NEVER },
    ]);
  });

  it("retries a temporary refusal, not before its retry_after", () => {
    const outbox = new Outbox();
    outbox.connected(0, true);
    const serial = serialOf(outbox.accept(0, emission("a")));
    outbox.acked(0, "a", serial, undefined, { ...AWAY, retryAfter: 3 });
    expect(outbox.nextDeadline()).toBe(3_000);
  });

  it("takes a late ack of an earlier try as what it is: the proof of delivery", () => {
    const outbox = new Outbox({ ackTimeout: 100 });
    outbox.connected(0, true);
    const serial = serialOf(outbox.accept(0, emission("a")));
    run(outbox, 200);
    expect(ids(outbox.acked(300, "a", serial, "late"), "delivered")).toEqual(["a"]);
    expect(run(outbox, 60_000)).toEqual([]);
  });

  it("doesn't let the refusal of an earlier try touch the one that is under way", () => {
    const outbox = new Outbox({ ackTimeout: 100 });
    outbox.connected(0, true);
    const serial = serialOf(outbox.accept(0, emission("a")));
    run(outbox, 1_100);
    expect(outbox.acked(1_150, "a", serial, undefined, NEVER)).toEqual([]);
    expect(outbox.pending).toBe(1);
  });

  it("never sends what has failed, and counts an ack that comes after", () => {
    const outbox = new Outbox({ ackTimeout: 100 });
    outbox.connected(0, true);
    const serial = serialOf(outbox.accept(0, emission("a", { maxRetries: 0 })));
    run(outbox, 100);
    expect(outbox.acked(200, "a", serial, "too late")).toEqual([]);
    outbox.disconnected();
    expect(outbox.connected(300, true)).toEqual([]);
    expect(outbox.counts.lateAcks).toBe(1);
  });

  it("sends at most maxPending without an ack; the others wait in the queue", () => {
    const outbox = new Outbox({ maxPending: 2 });
    outbox.connected(0, true);
    const sent = outbox.accept(0, emission("a"));
    outbox.accept(0, emission("b"));
    expect(outbox.accept(0, emission("c"))).toEqual([]);
    expect([outbox.pending, outbox.queued]).toEqual([2, 1]);
    expect(ids(outbox.acked(1, "a", serialOf(sent), null), "send")).toEqual(["c"]);
  });

  it("takes an id once", () => {
    const outbox = new Outbox();
    outbox.accept(0, emission("a"));
    outbox.accept(0, emission("a"));
    expect([outbox.queued, outbox.counts.accepted]).toEqual([1, 1]);
  });
});

describe("outbox offline", () => {
  it("flushes in order, 100 ms apart", () => {
    const outbox = new Outbox();
    for (const id of ["a", "b", "c"]) outbox.accept(0, emission(id));
    expect(ids(outbox.connected(1_000, true), "send")).toEqual(["a"]);
    expect(sends(run(outbox, 1_300))).toEqual([
      [1_100, "b"],
      [1_200, "c"],
    ]);
  });

  it("lets critical ones overtake, and new ones queue behind a flush", () => {
    const outbox = new Outbox();
    outbox.accept(0, emission("a"));
    outbox.accept(0, emission("b"));
    outbox.accept(0, emission("!", { priority: "critical" }));
    expect(ids(outbox.connected(0, true), "send")).toEqual(["!"]);
    expect(outbox.accept(10, emission("c"))).toEqual([]);
    expect(sends(run(outbox, 400)).map(([, id]) => id)).toEqual(["a", "b", "c"]);
  });

  it("evicts the oldest normal one when it is full", () => {
    const outbox = new Outbox({ maxQueueSize: 3 });
    outbox.accept(0, emission("!", { priority: "critical" }));
    outbox.accept(0, emission("a"));
    outbox.accept(0, emission("b"));
    expect(outbox.accept(0, emission("c"))).toMatchObject([
      { kind: "failed", reason: "queue_full", emission: { id: "a" } },
    ]);
    expect(outbox.queued).toBe(3);
  });

  it("refuses a normal one where all others are critical, and the oldest where all are", () => {
    const outbox = new Outbox({ maxQueueSize: 1 });
    outbox.accept(0, emission("!", { priority: "critical" }));
    expect(ids(outbox.accept(0, emission("a")), "failed")).toEqual(["a"]);
    expect(ids(outbox.accept(0, emission("!!", { priority: "critical" })), "failed")).toEqual([
      "!",
    ]);
  });

  it("queues what a cut left without an ack in its old place, and a cut uses up no try", () => {
    const outbox = new Outbox();
    for (const id of ["a", "b", "c"]) outbox.accept(0, emission(id, { maxRetries: 0 }));
    for (let cut = 0; cut < 10; cut += 1) {
      expect(ids(outbox.connected(cut * 1_000, true), "send")).toEqual(["a"]);
      run(outbox, cut * 1_000 + 100);
      outbox.disconnected();
    }
    expect([outbox.queued, outbox.pending]).toEqual([3, 0]);
    expect(outbox.counts.failed).toEqual({});
  });

  it("gives up what ends each connection, as max_cuts, and nothing else", () => {
    const outbox = new Outbox({ spacing: 10 });
    for (const id of ["a", "b", "poison", "c"]) outbox.accept(0, emission(id));
    outbox.accept(0, emission("d", { priority: "critical" }));
    const over = new Map<string, string>();
    for (let from = 0; from < 20_000; from += 1_000) live(outbox, from, over);
    expect(Object.fromEntries(over)).toEqual({
      ...{ a: "delivered", b: "delivered", c: "delivered", d: "delivered" },
      poison: "max_cuts",
    });
    expect(outbox.pending + outbox.queued).toBe(0);
  });

  it("sends what was cut off often while another rests before its retry", () => {
    const outbox = new Outbox();
    outbox.accept(0, emission("a"));
    for (let cut = 0; cut < 3; cut += 1) {
      outbox.connected(cut, true);
      outbox.disconnected();
    }
    outbox.accept(10, emission("b", { priority: "critical" }));
    const later = { ...AWAY, retryAfter: 3_600 };
    outbox.acked(2_000, "b", serialOf(outbox.connected(2_000, true)), null, later);
    expect(sends(run(outbox, 3_000)).map(([, id]) => id)).toEqual(["a"]);
  });

  it("sends what was cut three times alone, and gives it up at the twelfth cut", () => {
    const outbox = new Outbox({ spacing: 0 });
    outbox.connected(0, true);
    outbox.accept(0, emission("poison"));
    for (let cuts = 1; cuts < 12; cuts += 1) {
      outbox.disconnected();
      expect(ids(outbox.connected(cuts, true), "send")).toEqual(["poison"]);
      expect(outbox.counts.failed).toEqual({});
    }
    expect(ids(outbox.accept(12, emission("other")), "send")).toEqual([]);
    expect(sends(run(outbox, 1_000)), "it would be blamed as well").toEqual([]);
    outbox.disconnected();
    expect(ids(outbox.connected(2_000, true), "send")).toEqual(["other"]);
    expect(outbox.counts.failed).toEqual({ max_cuts: 1 });
  });

  it("evicts nothing by a cut alone", () => {
    const outbox = new Outbox({ maxQueueSize: 2 });
    outbox.connected(0, true);
    for (const id of ["a", "b", "c"]) outbox.accept(0, emission(id));
    outbox.disconnected();
    expect(outbox.queued).toBe(3);
  });

  it("waits with a retry that falls due offline until there is a connection", () => {
    const outbox = new Outbox();
    outbox.connected(0, true);
    const serial = serialOf(outbox.accept(0, emission("a")));
    outbox.acked(0, "a", serial, undefined, AWAY);
    outbox.disconnected();
    expect(sends(run(outbox, 60_000))).toEqual([]);
    expect(ids(outbox.connected(60_000, true), "send")).toEqual(["a"]);
  });

  it("puts what was kept over a reload before what was accepted since", () => {
    const outbox = new Outbox();
    outbox.accept(0, emission("new"));
    outbox.restore(0, [emission("old 1"), emission("old 2")]);
    const first = ids(outbox.connected(0, true), "send");
    expect([...first, ...sends(run(outbox, 500)).map(([, id]) => id)]).toEqual([
      "old 1",
      "old 2",
      "new",
    ]);
  });

  it("fails the rest when it is closed", () => {
    const outbox = new Outbox();
    outbox.accept(0, emission("a"));
    expect(outbox.close("closed")).toMatchObject([{ kind: "failed", reason: "closed" }]);
  });
});

/** A server and a network that the outbox can't trust, and the books that must balance. */
class Trial {
  readonly outbox = new Outbox({ maxQueueSize: 8, maxPending: 6, ackTimeout: 300 });
  readonly outcomes = new Map<string, string>();
  private readonly flying: { id: string; serial: number }[] = [];
  private accepted = 0;
  private now = 0;

  constructor(private readonly random: Random) {}

  step(): void {
    const { random, outbox } = this;
    this.now += random.below(200);
    this.take(outbox.handleTimeout(this.now));
    const act = random.below(10);
    if (act < 4) this.accept();
    else if (act < 8) this.answer();
    else if (act === 8) this.take(outbox.connected(this.now, random.chance(0.5)));
    else this.cut();
    this.balance();
  }

  finish(): void {
    this.take(this.outbox.connected(this.now, true));
    for (let round = 0; round < 200 && this.outbox.nextDeadline() !== undefined; round += 1) {
      this.now = Math.max(this.now, this.outbox.nextDeadline() ?? 0);
      this.take(this.outbox.handleTimeout(this.now));
      while (this.flying.length > 0) this.answer(true);
    }
    this.balance();
  }

  balance(): void {
    const { outbox } = this;
    const { accepted, delivered, failed } = outbox.counts;
    const gone = Object.values(failed).reduce((sum, each) => sum + each, 0);
    expect(accepted).toBe(this.accepted);
    expect(outbox.queued + outbox.pending + delivered + gone).toBe(accepted);
    expect(this.outcomes.size).toBe(delivered + gone);
  }

  private accept(): void {
    const { random } = this;
    const id = `${this.accepted++}`;
    const priority = random.chance(0.2) ? "critical" : "normal";
    const retryDelays = [random.below(400)];
    this.take(
      this.outbox.accept(
        this.now,
        emission(id, { priority, maxRetries: random.below(4), retryDelays }),
      ),
    );
  }

  private answer(success = this.random.chance(0.6)): void {
    const [ack] = this.flying.splice(this.random.below(this.flying.length), 1);
    if (!ack || (!success && this.random.chance(0.4))) return;
    const refusal = success ? undefined : this.random.chance(0.5) ? AWAY : NEVER;
    this.take(this.outbox.acked(this.now, ack.id, ack.serial, success, refusal));
  }

  private cut(): void {
    this.flying.length = 0;
    this.outbox.disconnected();
  }

  private take(effects: readonly OutboxEffect[]): void {
    for (const effect of effects) {
      const { id } = effect.emission;
      expect(this.outcomes.get(id), `${id} after its outcome`).toBeUndefined();
      if (effect.kind === "send") this.flying.push({ id, serial: effect.serial });
      else this.outcomes.set(id, effect.kind === "failed" ? effect.reason : "delivered");
    }
  }
}

describe("outbox in any history", () => {
  it.each(seeds(150))("accounts for every emission once (seed %i)", (seed) => {
    const trial = new Trial(new Random(seed));
    for (let step = 0; step < 250; step += 1) trial.step();
    trial.finish();
    expect([trial.outbox.queued, trial.outbox.pending]).toEqual([0, 0]);
  });
});
