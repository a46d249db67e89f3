import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Receiver } from "../src/cursor.js";
import type { Effect } from "../src/effects.js";
import {
  type Cursors,
  type From,
  parseBatch,
  parseLaneAnswers,
  parsePing,
  refusalOf,
} from "../src/wire.js";

interface Step {
  at: number;
  connect?: true;
  disconnect?: true;
  answer?: { ok: boolean; lanes?: unknown };
  receive?: ["batch" | "ping", unknown];
  wait?: true;
  sends?: unknown[];
  applies?: string[];
  tells?: unknown[];
  fails?: { [id: string]: number };
}

interface Conversation {
  title: string;
  stream: string;
  start: { from?: From; cursors?: Cursors };
  steps: Step[];
  cursors: Cursors;
  counts: { [name: string]: number };
}

const FOLDER = new URL("../../../conformance/", import.meta.url);
const INPUTS = new Set(["connect", "disconnect", "answer", "receive", "wait"]);
const KNOWN = new Set([...INPUTS, "at", "sends", "applies", "tells", "fails"]);

/** Replays one conversation; handlers return at once. */
class Replay {
  readonly receiver: Receiver;
  sends: unknown[] = [];
  applies: string[] = [];
  tells: unknown[] = [];
  private readonly fails = new Map<string, number>();

  constructor(private readonly conversation: Conversation) {
    this.receiver = new Receiver(conversation.stream, conversation.start);
  }

  step(step: Step): void {
    this.sends = [];
    this.applies = [];
    this.tells = [];
    for (const [id, times] of Object.entries(step.fails ?? {})) this.fails.set(id, times);
    const at = step.at * 1_000;
    this.deadlines(at);
    this.input(at, step);
  }

  private deadlines(at: number): void {
    for (let next = this.receiver.nextDeadline(); next !== undefined && next <= at; ) {
      this.run(next, this.receiver.handleTimeout(next));
      next = this.receiver.nextDeadline();
    }
  }

  private input(at: number, step: Step): void {
    if (step.connect) this.run(at, this.receiver.connected(at));
    if (step.disconnect) this.receiver.disconnected();
    if (step.answer) this.answer(at, step.answer);
    if (step.receive) this.receive(at, ...step.receive);
  }

  private answer(at: number, answer: { ok: boolean; lanes?: unknown }): void {
    const refusal = refusalOf(answer);
    const lanes = parseLaneAnswers(answer.lanes);
    if (refusal) this.run(at, this.receiver.refused(at, refusal, 0));
    else if (lanes) this.run(at, this.receiver.answered(at, lanes));
    else throw new Error("the answer isn't of the form");
  }

  private receive(at: number, name: "batch" | "ping", payload: unknown): void {
    if (name === "ping") {
      const heads = parsePing(payload)?.heads.get(this.conversation.stream);
      if (!heads) throw new Error("the ping isn't of the form");
      this.run(at, this.receiver.pinged(at, heads));
      return;
    }
    const batch = parseBatch(payload);
    if (!batch) throw new Error("the batch isn't of the form");
    this.run(at, this.receiver.received(at, batch));
  }

  private run(at: number, effects: readonly Effect[]): void {
    const queue = [...effects];
    for (let effect = queue.shift(); effect; effect = queue.shift()) {
      if (effect.kind === "told") this.tells.push(effect.told);
      else if (effect.kind === "deliver") queue.push(...this.handle(at, effect));
      else this.sends.push([effect.kind, effect.payload]);
    }
  }

  private handle(at: number, { lane, event }: Effect & { kind: "deliver" }): Effect[] {
    const left = this.fails.get(event.id) ?? 0;
    this.fails.set(event.id, left - 1);
    if (left > 0) return this.receiver.failed(at, lane);
    this.applies.push(event.id);
    return this.receiver.handled(at, lane);
  }
}

function conversations(): [string, Conversation][] {
  const names = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));
  return names
    .sort()
    .map((name) => [name, JSON.parse(readFileSync(new URL(name, FOLDER), "utf8"))]);
}

describe("conformance", () => {
  it("finds the conversations", () => {
    expect(conversations().length).toBeGreaterThanOrEqual(9);
  });

  it.each(conversations())("%s", (_, conversation) => {
    const replay = new Replay(conversation);
    for (const [index, step] of conversation.steps.entries()) {
      const where = `step ${index} at ${step.at}`;
      for (const key of Object.keys(step)) expect(KNOWN, `${where}: ${key}`).toContain(key);
      replay.step(step);
      expect({ where, sends: replay.sends }).toEqual({ where, sends: step.sends ?? [] });
      expect({ where, applies: replay.applies }).toEqual({ where, applies: step.applies ?? [] });
      expect({ where, tells: replay.tells }).toEqual({ where, tells: step.tells ?? [] });
    }
    expect(replay.receiver.cursors).toEqual(conversation.cursors);
    expect(replay.receiver.counts).toMatchObject(conversation.counts);
  });
});
