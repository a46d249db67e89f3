import { describe, expect, it } from "vitest";
import { Backoff } from "../src/backoff.js";
import { Receiver } from "../src/cursor.js";
import type { Effect, SubscribePayload, Told } from "../src/effects.js";
import { IllegalInput } from "../src/errors.js";
import type {
  Batch,
  Cursor,
  From,
  Lane,
  LaneAnswer,
  LaneAnswers,
  StreamEvent,
} from "../src/wire.js";
import { Random, seeds } from "./random.js";

function event(offset: number, lane: Lane = "normal", id = `${lane}${offset}`): StreamEvent {
  const time = "2026-01-01T00:00:00Z";
  return { offset, id, source: "test", type: "t", time, priority: lane, data: offset };
}

function batch(after: number, upto: number, lane: Lane = "normal", epoch = "e1"): Batch {
  const events = Array.from({ length: upto - after }, (_, index) => event(after + 1 + index, lane));
  return { stream: "s", lane, epoch, after, upto, events };
}

function answers(normal: Partial<LaneAnswer> = {}): LaneAnswers {
  const quiet: LaneAnswer = { status: "new", cursor: ["e1", 0], head: ["e1", 0], behind: 0 };
  return { critical: quiet, normal: { ...quiet, ...normal } };
}

function following(normal: Partial<LaneAnswer> = {}): Receiver {
  const receiver = new Receiver("s");
  receiver.connected(0);
  receiver.answered(0, answers(normal));
  return receiver;
}

/** Let every handler succeed at once; gives the effects without the deliveries. */
function settle(receiver: Receiver, now: number, effects: readonly Effect[]): Effect[] {
  const out: Effect[] = [];
  const queue = [...effects];
  for (let effect = queue.shift(); effect; effect = queue.shift()) {
    if (effect.kind === "deliver") queue.push(...receiver.handled(now, effect.lane));
    else out.push(effect);
  }
  return out;
}

describe("receiver", () => {
  it("acks after 64 events, without waiting for the second to pass", () => {
    const receiver = following();
    const effects = settle(receiver, 1, receiver.received(1, batch(0, 70)));
    expect(effects).toEqual([
      { kind: "ack", payload: { stream: "s", lane: "normal", epoch: "e1", offset: 64 } },
    ]);
    expect(receiver.nextDeadline()).toBe(1_001);
  });

  it("acks after 256 KiB", () => {
    const receiver = following();
    const big = { ...event(1), data: "x".repeat(256 * 1024) };
    const effects = settle(receiver, 1, receiver.received(1, { ...batch(0, 1), events: [big] }));
    expect(effects).toMatchObject([{ kind: "ack", payload: { offset: 1 } }]);
  });

  it("drops what overflows the inbox of a stuck handler, and repairs the hole", () => {
    const receiver = following();
    for (let page = 0; page < 20; page += 1) {
      receiver.received(1, batch(page * 256, (page + 1) * 256));
    }
    expect(receiver.counts.fullDropped).toBe(3 * 256);
    const stuck = receiver.turn("normal");
    expect(stuck).toHaveLength(256);
    settle(receiver, 2, [
      { kind: "deliver", lane: "normal", epoch: "e1", event: event(1), attempt: 1 },
    ]);
    expect(receiver.cursors.normal?.[1]).toBe(17 * 256);
    expect(receiver.received(3, batch(20 * 256, 20 * 256 + 1))).toMatchObject([
      { kind: "subscribe" },
    ]);
  });

  it("doesn't call lost what it holds in hand while the log is trimmed", () => {
    const receiver = following();
    receiver.received(1, batch(0, 10));
    receiver.handled(1, "normal");
    receiver.disconnected();
    receiver.connected(2);
    const effects = receiver.answered(
      2,
      answers({ status: "trimmed", cursor: ["e1", 20], head: ["e1", 20], lost: [2, 20] }),
    );
    expect(effects).toMatchObject([{ kind: "told", told: { kind: "trimmed", lost: [11, 20] } }]);
    settle(receiver, 3, [
      { kind: "deliver", lane: "normal", epoch: "e1", event: event(2), attempt: 1 },
    ]);
    expect(receiver.counts).toMatchObject({ applied: 10, lost: 10 });
    expect(receiver.cursors.normal).toEqual(["e1", 20]);
  });

  it("tells a reset once nothing of the old log is in hand, so that clearing clears it all", () => {
    const receiver = following();
    receiver.received(1, batch(0, 10));
    receiver.pinged(2, { normal: ["e2", 1] });
    const reset = answers({ status: "reset", cursor: ["e2", 0], head: ["e2", 1], behind: 1 });
    expect(receiver.answered(2, reset)).toEqual([]);
    const next = { ...batch(0, 1, "normal", "e2") };
    expect(receiver.received(3, next), "it waits for the handler").toEqual([]);
    expect(receiver.handled(4, "normal")).toMatchObject([
      { kind: "told", told: { kind: "reset", lane: "normal" } },
      { kind: "deliver", epoch: "e2" },
    ]);
    receiver.handled(4, "normal");
    expect(receiver.counts).toMatchObject({ applied: 2, cutDropped: 9, resets: 1 });
    expect(receiver.cursors.normal).toEqual(["e2", 1, "normal1"]);
  });

  it("doesn't try again what failed in a log that is no more", () => {
    const receiver = following();
    receiver.received(1, batch(0, 10));
    receiver.take("normal", 4);
    receiver.pinged(2, { normal: ["e2", 0] });
    receiver.answered(2, answers({ status: "reset", cursor: ["e2", 0] }));
    expect(receiver.isCutOff("normal")).toBe(true);
    expect(receiver.failed(3, "normal")).toMatchObject([{ kind: "told", told: { kind: "reset" } }]);
    expect(receiver.counts).toMatchObject({ applied: 0, cutDropped: 10 });
  });

  it("tells progress while it is behind", () => {
    const receiver = following({ status: "new", cursor: ["e1", 0], head: ["e1", 4], behind: 4 });
    receiver.received(1, batch(0, 4));
    receiver.handled(1, "normal");
    expect([receiver.replaying, receiver.progress]).toEqual([true, { done: 1, total: 4 }]);
    for (let left = 0; left < 3; left += 1) receiver.handled(1, "normal");
    expect([receiver.replaying, receiver.progress]).toEqual([false, { done: 4, total: 4 }]);
  });

  it("is behind in the other log after a reset until its head is applied", () => {
    const receiver = following();
    receiver.pinged(1, { normal: ["e2", 3] });
    receiver.answered(
      1,
      answers({ status: "reset", cursor: ["e2", 1], head: ["e2", 3], behind: 2 }),
    );
    receiver.received(2, batch(1, 3, "normal", "e2"));
    expect(receiver.replaying).toBe(true);
    for (let left = 0; left < 2; left += 1) receiver.handled(2, "normal");
    expect([receiver.replaying, receiver.progress]).toEqual([false, { done: 2, total: 2 }]);
  });

  it("acks in the other log by what it applied there, not in the one before", () => {
    const receiver = following();
    settle(receiver, 1, receiver.received(1, batch(0, 60)));
    receiver.pinged(2, { normal: ["e2", 10] });
    receiver.answered(
      2,
      answers({ status: "reset", cursor: ["e2", 0], head: ["e2", 10], behind: 10 }),
    );
    const effects = settle(receiver, 2, receiver.received(2, batch(0, 10, "normal", "e2")));
    expect(effects.filter(({ kind }) => kind === "ack")).toEqual([]);
    expect(receiver.nextDeadline()).toBe(1_002);
  });

  it("drops and counts an answer that nobody asked for", () => {
    const receiver = following();
    expect(receiver.answered(1, answers({ status: "reset", cursor: ["e2", 5] }))).toEqual([]);
    expect(receiver.refused(1, { code: "x", temporary: false, message: "" }, 0)).toEqual([]);
    expect(receiver.cursors.normal).toEqual(["e1", 0]);
    expect(receiver.counts.answersDropped).toBe(2);
  });

  it("knows no total where a lane can't tell", () => {
    expect(following({ behind: null, head: ["e1", 9] }).progress.total).toBeNull();
  });

  it("widens the wait between temporary refusals", () => {
    const receiver = new Receiver("s", { backoff: new Backoff({ base: 1_000 }) });
    const away = { code: "unavailable", temporary: true, message: "" };
    receiver.connected(0);
    receiver.refused(0, away, 0);
    expect(receiver.nextDeadline()).toBe(1_000);
    receiver.handleTimeout(1_000);
    receiver.refused(1_000, away, 0);
    expect(receiver.nextDeadline()).toBe(3_000);
  });

  it("begins the wait anew once it was answered", () => {
    const receiver = new Receiver("s", { backoff: new Backoff({ base: 1_000 }) });
    const away = { code: "unavailable", temporary: true, message: "" };
    receiver.connected(0);
    receiver.refused(0, away, 0);
    receiver.handleTimeout(1_000);
    receiver.answered(1_000, answers());
    receiver.pinged(1_000, { normal: ["e2", 1] });
    receiver.refused(1_000, away, 0);
    expect(receiver.nextDeadline()).toBe(2_000);
  });

  it("has nothing to do while the connection is gone", () => {
    const receiver = following();
    settle(receiver, 1, receiver.received(1, batch(0, 2)));
    receiver.pinged(1, { normal: ["e1", 5] });
    expect(receiver.nextDeadline()).toBe(1_001);
    receiver.disconnected();
    expect(receiver.nextDeadline()).toBeUndefined();
    expect(receiver.handleTimeout(10_000)).toEqual([]);
  });

  it("drops what comes after it was closed", () => {
    const receiver = following();
    receiver.received(1, batch(0, 2));
    receiver.close();
    expect(receiver.handled(2, "normal")).toEqual([]);
    expect(receiver.cursors.normal, "its handler was running").toEqual(["e1", 1, "normal1"]);
    expect(receiver.received(3, batch(2, 3))).toEqual([]);
    expect(receiver.nextDeadline()).toBeUndefined();
  });

  it("refuses inputs that its state forbids", () => {
    expect(() => following().connected(1)).toThrow(IllegalInput);
    expect(() => following().handled(1, "normal")).toThrow(IllegalInput);
  });
});

const LANES: readonly Lane[] = ["critical", "normal"];

/** A log that grows, is trimmed and now and then made anew; a network that loses, doubles and cuts. */
class World {
  readonly receiver: Receiver;
  readonly applied: { lane: Lane; epoch: string; offset: number }[] = [];
  readonly told: Told[] = [];
  private epoch = 1;
  private lanes: { [lane in Lane]: { head: number; trim: number; offsets: number[] } } = empty();
  private sent: { [lane in Lane]: number } | undefined;
  private asked: SubscribePayload | undefined;
  private readonly busy = new Set<Lane>();
  private up = false;
  now = 0;

  constructor(private readonly random: Random) {
    const from: From = "start";
    this.receiver = new Receiver("s", { from });
  }

  /** What was received is applied, passed over, dropped for a reason, or still here. */
  balance(): void {
    const { counts, pending } = this.receiver;
    const dropped =
      counts.duplicatesDropped + counts.straysDropped + counts.cutDropped + counts.fullDropped;
    expect(counts.applied + counts.passedOver + dropped + pending).toBe(counts.received);
  }

  step(): void {
    const { random } = this;
    this.now += random.below(700);
    this.deadlines();
    const act = random.below(20);
    if (act < 5) this.append();
    else if (act < 10) this.send();
    else if (act < 14) this.finishHandler();
    else if (act < 16) this.answer();
    else if (act === 16) this.cut();
    else if (act === 17) this.connect();
    else if (act === 18) this.ping();
    else if (random.chance(0.3)) this.trimOrRenew();
  }

  finish(): void {
    for (let round = 0; round < 400; round += 1) {
      this.now += 1_000;
      this.deadlines();
      this.connect();
      this.answer();
      this.finishHandler();
      this.send(false);
      if (round % 30 === 0) this.ping();
    }
  }

  /** In every epoch each lane's events were applied once, in order; what is missing was told. */
  check(): void {
    for (const lane of LANES) {
      const mine = this.applied.filter((each) => each.lane === lane);
      const epochs = [...new Set(mine.map((each) => each.epoch))];
      for (const epoch of epochs) {
        const offsets = mine.filter((each) => each.epoch === epoch).map((each) => each.offset);
        expect(offsets).toEqual([...new Set(offsets)].sort((a, b) => a - b));
      }
      const now = `e${this.epoch}`;
      const seen = new Set(mine.filter((each) => each.epoch === now).map((each) => each.offset));
      const lost = this.lostSinceReset(lane);
      const { offsets, head } = this.lanes[lane];
      expect(this.receiver.pending).toBe(0);
      const missing = offsets.filter(
        (offset) =>
          !seen.has(offset) && !lost.some(([first, last]) => first <= offset && offset <= last),
      );
      expect(missing).toEqual([]);
      expect(this.receiver.cursors[lane]?.slice(0, 2)).toEqual([now, head]);
    }
  }

  private lostSinceReset(lane: Lane): readonly (readonly [number, number])[] {
    const mine = this.told.filter((each) => "lane" in each && each.lane === lane);
    const reset = mine.map((each) => each.kind).lastIndexOf("reset");
    return mine.slice(reset + 1).flatMap((each) => (each.kind === "trimmed" ? [each.lost] : []));
  }

  private deadlines(): void {
    const due = this.receiver.nextDeadline();
    if (due !== undefined && due <= this.now) this.take(this.receiver.handleTimeout(this.now));
  }

  private append(): void {
    const lane = this.lanes[this.lane()];
    for (let count = this.random.below(4); count >= 0; count -= 1) {
      lane.head += 1 + this.random.below(2);
      lane.offsets.push(lane.head);
    }
  }

  private lane(): Lane {
    return this.random.chance(0.3) ? "critical" : "normal";
  }

  private send(unsafe = true): void {
    for (const name of LANES) {
      const { offsets, head, trim } = this.lanes[name];
      if (!this.sent) return;
      const after = Math.max(this.sent[name], trim);
      if (after >= head) continue;
      const page = offsets.filter((offset) => offset > after).slice(0, 1 + this.random.below(6));
      const upto = page.at(-1) ?? head;
      this.sent[name] = upto;
      const events = page.map((offset) => event(offset, name));
      const lost = unsafe && this.random.chance(0.1);
      const times = lost ? 0 : unsafe && this.random.chance(0.1) ? 2 : 1;
      const sent: Batch = { stream: "s", lane: name, epoch: `e${this.epoch}`, after, upto, events };
      for (let copy = 0; copy < times; copy += 1) this.take(this.receiver.received(this.now, sent));
    }
  }

  private answer(): void {
    const { asked } = this;
    if (!this.up || !asked) return;
    this.asked = undefined;
    const sent = { critical: 0, normal: 0 };
    const told: { [lane in Lane]?: LaneAnswer } = {};
    for (const lane of LANES) {
      const answer = this.laneAnswer(lane, asked.cursors[lane]);
      told[lane] = answer;
      sent[lane] = answer.cursor[1];
    }
    this.sent = sent;
    this.take(this.receiver.answered(this.now, told));
  }

  private laneAnswer(lane: Lane, cursor: Cursor | undefined): LaneAnswer {
    const { head, trim } = this.lanes[lane];
    const epoch = `e${this.epoch}`;
    const at = (offset: number) => ({
      cursor: [epoch, offset] as const,
      head: [epoch, head] as const,
    });
    if (!cursor) return { status: "new", ...at(trim), behind: null };
    if (cursor[0] !== epoch || cursor[1] > head)
      return { status: "reset", ...at(trim), behind: null };
    if (cursor[1] >= trim) return { status: "resumed", ...at(cursor[1]), behind: null };
    return { status: "trimmed", ...at(trim), behind: null, lost: [cursor[1] + 1, trim] };
  }

  private cut(): void {
    if (!this.up) return;
    this.up = false;
    this.sent = undefined;
    this.asked = undefined;
    this.receiver.disconnected();
  }

  private connect(): void {
    if (this.up) return;
    this.up = true;
    this.take(this.receiver.connected(this.now));
  }

  private ping(): void {
    if (!this.up) return;
    const head = (lane: Lane) => [`e${this.epoch}`, this.lanes[lane].head] as const;
    this.take(
      this.receiver.pinged(this.now, { critical: head("critical"), normal: head("normal") }),
    );
  }

  private trimOrRenew(): void {
    if (this.random.chance(0.3)) {
      this.epoch += 1;
      this.lanes = empty();
      this.sent = undefined;
      this.cut();
      return;
    }
    const lane = this.lanes[this.lane()];
    lane.trim += this.random.below(lane.head - lane.trim + 1);
    lane.offsets = lane.offsets.filter((offset) => offset > lane.trim);
  }

  private finishHandler(): void {
    for (const lane of LANES) {
      const first = this.receiver.turn(lane)[0];
      if (!this.busy.has(lane) || !first) continue;
      this.busy.delete(lane);
      const before = this.receiver.counts.applied;
      const epoch = this.receiver.cursors[lane]?.[0] ?? "";
      const effects = this.receiver.handled(this.now, lane);
      if (this.receiver.counts.applied > before) {
        this.applied.push({ lane, epoch, offset: first.offset });
      }
      this.take(effects);
    }
  }

  private take(effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (effect.kind === "subscribe") this.asked = effect.payload;
      else if (effect.kind === "told") this.told.push(effect.told);
      else if (effect.kind === "deliver") this.busy.add(effect.lane);
      else this.checkAck(effect.payload.lane, effect.payload.offset);
    }
  }

  private checkAck(lane: Lane, offset: number): void {
    expect(offset).toBeLessThanOrEqual(this.receiver.cursors[lane]?.[1] ?? 0);
  }
}

function empty(): { [lane in Lane]: { head: number; trim: number; offsets: number[] } } {
  return {
    critical: { head: 0, trim: 0, offsets: [] },
    normal: { head: 0, trim: 0, offsets: [] },
  };
}

describe("receiver in any history", () => {
  it.each(seeds(150))("applies each event once, in order, or tells its loss (seed %i)", (seed) => {
    const world = new World(new Random(seed));
    for (let step = 0; step < 300; step += 1) {
      world.step();
      world.balance();
    }
    world.finish();
    world.check();
  });
});
