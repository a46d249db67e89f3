/**
 * The receiver's rule: a subscriber's side of one stream, both lanes. Pure; times in milliseconds.
 *
 * Inputs come with `now`; effects come back in order. The shell reports each `deliver` as `handled` or
 * `failed`, and re-arms one timer from `nextDeadline`. Each lane has a cursor, an inbox and a batch in hand.
 */

import { Backoff } from "./backoff.js";
import { type Counts, type Effect, noCounts, type Progress, type Told } from "./effects.js";
import { IllegalInput } from "./errors.js";
import {
  type Batch,
  type Cursor,
  type Cursors,
  type From,
  type Heads,
  LANES,
  type Lane,
  type LaneAnswer,
  type LaneAnswers,
  type Refusal,
  type StreamEvent,
  sizeOf,
} from "./wire.js";

export const ACK_EVENTS = 64;
export const ACK_BYTES = 256 * 1024;
export const ACK_DELAY = 1_000;
/** A head above the cursor with nothing arriving for so long is a gap. */
export const TAIL_DELAY = 5_000;
/** A subscribe that has no answer for so long is sent again. */
export const ANSWER_DELAY = 10_000;
/** How often an event's handler may fail before the event is passed over. */
export const ATTEMPTS = 3;
/** More waiting events than this in a lane are dropped: the chain shows the gap, and it is repaired. */
export const INBOX_EVENTS = 4_096;

/** The state of a subscription at its server. */
export type Link = "offline" | "asking" | "following" | "waiting" | "refused" | "closed";
type Input = "connected" | "disconnected" | "answered" | "putOff" | "refused" | "ask" | "close";

const TRANSITIONS: { readonly [link in Link]: { readonly [input in Input]?: Link } } = {
  offline: { connected: "asking", disconnected: "offline", close: "closed" },
  asking: {
    answered: "following",
    putOff: "waiting",
    refused: "refused",
    ask: "asking",
    disconnected: "offline",
    close: "closed",
  },
  following: { ask: "asking", disconnected: "offline", close: "closed" },
  waiting: { ask: "asking", disconnected: "offline", close: "closed" },
  refused: { disconnected: "offline", close: "closed" },
  closed: { close: "closed" },
};

class LaneState {
  readonly inbox: Batch[] = [];
  inboxEvents = 0;
  turn: StreamEvent[] = [];
  turnUpto = 0;
  attempt = 0;
  aborted = false;
  unacked = 0;
  unackedBytes = 0;
  ackDue: number | undefined;
  replayUpto = 0;
  /** The loss up to here was told: a second answer doesn't tell it again. */
  toldUpto = 0;
  tail: number | undefined;
  tailDue: number | undefined;
  lastArrival = Number.NEGATIVE_INFINITY;

  constructor(
    readonly lane: Lane,
    public cursor: Cursor | undefined,
  ) {}

  get offset(): number {
    return this.cursor?.[1] ?? 0;
  }

  get busy(): boolean {
    return this.turn.length > 0 || this.inbox.length > 0;
  }

  clearInbox(): void {
    this.inbox.length = 0;
    this.inboxEvents = 0;
  }

  /** Forget the batch in hand; the handler that may be running still reports once. */
  abortTurn(): void {
    this.clearInbox();
    this.turn.length = Math.min(1, this.turn.length);
    this.aborted = this.turn.length > 0;
  }
}

export interface ReceiverOptions {
  /** Where a lane without a cursor begins; default `"end"`. */
  readonly from?: From;
  /** What was kept from before. */
  readonly cursors?: Cursors;
  readonly backoff?: Backoff;
}

export class Receiver {
  link: Link = "offline";
  readonly counts: Counts = noCounts();
  private readonly from: From;
  private readonly backoff: Backoff;
  private readonly lanes: { readonly [lane in Lane]: LaneState };
  private due: number | undefined;
  private repairing = false;
  private tries = 0;
  private behind: number | null = 0;
  private replayedBefore = 0;
  private effects: Effect[] = [];

  constructor(
    readonly stream: string,
    { from = "end", cursors = {}, backoff = new Backoff({ cap: 30_000 }) }: ReceiverOptions = {},
  ) {
    this.from = from;
    this.backoff = backoff;
    this.lanes = {
      critical: new LaneState("critical", cursors.critical),
      normal: new LaneState("normal", cursors.normal),
    };
  }

  // What can be asked

  /** The cursors to keep and to resume from: of every lane that an answer or an event has set. */
  get cursors(): Cursors {
    const { critical, normal } = this.lanes;
    return {
      ...(critical.cursor && { critical: critical.cursor }),
      ...(normal.cursor && { normal: normal.cursor }),
    };
  }

  /** Whether a lane is still behind the head that the last answer told. */
  get replaying(): boolean {
    return this.link !== "following" || this.states().some((s) => s.offset < s.replayUpto);
  }

  /** How far the replay since the last answer is. */
  get progress(): Progress {
    return { done: this.counts.replayed - this.replayedBefore, total: this.behind };
  }

  /** The events of the lane's batch in hand, the one that is being handled first. */
  turn(lane: Lane): readonly StreamEvent[] {
    return this.lanes[lane].turn;
  }

  nextDeadline(): number | undefined {
    const times = [this.due, ...this.states().flatMap((s) => [s.ackDue, s.tailDue])];
    const set = times.filter((time) => time !== undefined);
    return set.length > 0 ? Math.min(...set) : undefined;
  }

  // What comes in

  /** Take cursors that were kept, before the first connect; a cursor that is already there stays. */
  restore(cursors: Cursors): void {
    for (const state of this.states()) state.cursor ??= cursors[state.lane];
  }

  /** The connect was accepted: ask for the subscription. */
  connected(now: number): Effect[] {
    this.move("connected");
    for (const state of this.states()) state.unacked = state.unackedBytes = 0;
    this.ask(now);
    return this.drain();
  }

  /** The connection is gone: what waits for its turn is dropped, it comes again. */
  disconnected(): void {
    if (this.link === "closed") return;
    this.move("disconnected");
    this.due = undefined;
    this.repairing = false;
    for (const state of this.states()) {
      state.clearInbox();
      state.ackDue = state.tailDue = state.tail = undefined;
    }
  }

  /** End the subscription; nothing moves any more. */
  close(): void {
    this.move("close");
    this.due = undefined;
    for (const state of this.states()) {
      state.abortTurn();
      state.ackDue = state.tailDue = undefined;
    }
  }

  /** Take the answer to `subscribe`; one that was not asked for is dropped and counted. */
  answered(now: number, answers: LaneAnswers): Effect[] {
    if (this.stray()) return [];
    this.move("answered");
    this.due = undefined;
    this.tries = 0;
    this.behind = 0;
    this.replayedBefore = this.counts.replayed;
    for (const state of this.states()) {
      const answer = answers[state.lane];
      if (answer) this.settle(state, answer);
      state.lastArrival = now;
    }
    if (this.repairing) this.counts.gapsRepaired += 1;
    this.repairing = false;
    for (const state of this.states()) this.nextTurn(now, state);
    return this.drain();
  }

  /** Take a failed answer: a temporary one is asked again after a backoff, another is told. */
  refused(now: number, refusal: Refusal, jitter: number): Effect[] {
    if (this.stray()) return [];
    if (refusal.temporary) {
      this.move("putOff");
      const wait = this.backoff.delay(this.tries, jitter);
      this.due = now + Math.max(wait, (refusal.retryAfter ?? 0) * 1_000);
      this.tries += 1;
    } else {
      this.move("refused");
      this.due = undefined;
      this.tell({ kind: "refused", code: refusal.code });
    }
    return this.drain();
  }

  /** Take a batch; it is judged when its turn comes. */
  received(now: number, batch: Batch): Effect[] {
    const state = this.lanes[batch.lane];
    const full = state.inbox.length > 0 && state.inboxEvents + batch.events.length > INBOX_EVENTS;
    if (this.link !== "closed" && this.link !== "offline") state.lastArrival = now;
    if (full || this.link === "closed" || this.link === "offline") {
      this.counts.straysDropped += 1;
      return [];
    }
    state.inbox.push(batch);
    state.inboxEvents += batch.events.length;
    this.nextTurn(now, state);
    return this.drain();
  }

  /** The handler of the lane's event returned: the cursor moves. */
  handled(now: number, lane: Lane): Effect[] {
    const state = this.inHand(lane);
    if (state.aborted) return this.finishAborted(now, state);
    this.counts.applied += 1;
    return this.step(now, state);
  }

  /** The handler failed: it is run again; after the third time the event is passed over. */
  failed(now: number, lane: Lane): Effect[] {
    const state = this.inHand(lane);
    const event = state.turn[0];
    if (state.aborted || !event) return this.finishAborted(now, state);
    if (state.attempt < ATTEMPTS) {
      this.deliver(state);
      return this.drain();
    }
    this.counts.passedOver += 1;
    this.tell({ kind: "passed_over", lane, offset: event.offset, id: event.id });
    return this.step(now, state);
  }

  /** Take the heads of a `ping`: another epoch, or a tail that never came, is asked about. */
  pinged(now: number, heads: Heads): Effect[] {
    if (this.link !== "following") return [];
    for (const state of this.states()) {
      const head = heads[state.lane];
      if (!head) continue;
      const [epoch, offset] = head;
      if (state.cursor && epoch !== state.cursor[0]) this.askAgain(now);
      else if (offset > state.offset) {
        state.tail = offset;
        state.tailDue ??= now + TAIL_DELAY;
      }
    }
    return [...this.drain(), ...this.handleTimeout(now)];
  }

  /** Do what is due: acks, a subscribe that is to be sent again, a lost tail. */
  handleTimeout(now: number): Effect[] {
    if (this.due !== undefined && this.due <= now) {
      this.move("ask");
      this.ask(now);
    }
    for (const state of this.states()) {
      if (state.ackDue !== undefined && state.ackDue <= now) this.ack(state);
      if (state.tailDue !== undefined && state.tailDue <= now) this.judgeTail(now, state);
    }
    return this.drain();
  }

  // The rule

  private nextTurn(now: number, state: LaneState): void {
    while (state.turn.length === 0) {
      const batch = state.inbox.shift();
      if (!batch) return;
      state.inboxEvents -= batch.events.length;
      this.judge(now, state, batch);
    }
  }

  private judge(now: number, state: LaneState, batch: Batch): void {
    const { cursor } = state;
    if (!cursor) this.counts.straysDropped += 1;
    else if (batch.epoch !== cursor[0] || batch.after > cursor[1]) this.askAgain(now);
    else if (batch.upto <= cursor[1]) {
      this.counts.duplicatesDropped += batch.events.length;
      this.ack(state);
    } else {
      const fresh = batch.events.filter((event) => event.offset > cursor[1]);
      this.counts.duplicatesDropped += batch.events.length - fresh.length;
      this.begin(now, state, fresh, batch.upto);
    }
  }

  private begin(now: number, state: LaneState, fresh: StreamEvent[], upto: number): void {
    state.turn = fresh;
    state.turnUpto = upto;
    state.attempt = 0;
    if (fresh.length > 0) this.deliver(state);
    else {
      this.pass(state, upto);
      this.oweAck(now, state, 0, 0);
    }
  }

  private deliver(state: LaneState): void {
    const event = state.turn[0];
    if (!event || !state.cursor) return;
    state.attempt += 1;
    const { lane, attempt } = state;
    this.effects.push({ kind: "deliver", lane, epoch: state.cursor[0], event, attempt });
  }

  /** Move the cursor over the event in hand and go on with the next one. */
  private step(now: number, state: LaneState): Effect[] {
    const event = state.turn.shift();
    state.attempt = 0;
    if (event && state.cursor) {
      if (event.offset <= state.replayUpto) this.counts.replayed += 1;
      state.cursor = [state.cursor[0], event.offset, event.id];
      if (state.turn.length > 0) this.deliver(state);
      else this.pass(state, state.turnUpto);
      this.oweAck(now, state, 1, sizeOf(event));
    }
    this.nextTurn(now, state);
    return this.drain();
  }

  /** Move the cursor to the end of a batch whose last offsets hold no event. */
  private pass(state: LaneState, upto: number): void {
    if (state.cursor && upto > state.cursor[1]) state.cursor = [state.cursor[0], upto];
  }

  private finishAborted(now: number, state: LaneState): Effect[] {
    state.turn = [];
    state.aborted = false;
    this.nextTurn(now, state);
    return this.drain();
  }

  /** Take a lane's answer: `resumed` never moves the cursor, and within an epoch nothing moves it back. */
  private settle(state: LaneState, answer: LaneAnswer): void {
    const { status, cursor: told, behind } = answer;
    this.behind = this.behind === null || behind === null ? null : this.behind + behind;
    if (status === "reset") this.reset(state, told);
    else if (status === "trimmed") this.trim(state, answer);
    else state.cursor ??= told;
    state.replayUpto = answer.head[1];
  }

  private reset(state: LaneState, told: Cursor): void {
    this.counts.resets += 1;
    this.tell({ kind: "reset", lane: state.lane });
    state.abortTurn();
    state.cursor = told;
    state.toldUpto = 0;
  }

  /** What is in hand isn't lost: the cursor passes the loss when the batch in hand is done. */
  private trim(state: LaneState, { cursor: told, lost, maybe = false }: LaneAnswer): void {
    const held = state.turn.length > 0 && !state.aborted;
    if (lost) {
      const first = Math.max(lost[0], state.toldUpto + 1, held ? state.turnUpto + 1 : 0);
      if (first <= lost[1]) this.tellLoss(state, [first, lost[1]], maybe);
    }
    if (held) state.turnUpto = Math.max(state.turnUpto, told[1]);
    else if (!state.cursor || told[1] > state.cursor[1]) state.cursor = told;
  }

  private tellLoss(state: LaneState, lost: readonly [number, number], maybe: boolean): void {
    if (!maybe) this.counts.lost += lost[1] - lost[0] + 1;
    state.toldUpto = lost[1];
    this.tell({ kind: "trimmed", lane: state.lane, lost, maybe });
  }

  // Asking and acking

  private ask(now: number): void {
    this.due = now + ANSWER_DELAY;
    const payload = { stream: this.stream, cursors: this.cursors, from: this.from };
    this.effects.push({ kind: "subscribe", payload });
  }

  /** Repair from the cursor, unless a subscribe is under way: then what doesn't fit is dropped. */
  private askAgain(now: number): void {
    if (this.link !== "following") {
      this.counts.straysDropped += 1;
      return;
    }
    this.repairing = true;
    this.move("ask");
    this.ask(now);
  }

  private oweAck(now: number, state: LaneState, events: number, bytes: number): void {
    state.unacked += events;
    state.unackedBytes += bytes;
    if (state.unacked >= ACK_EVENTS || state.unackedBytes >= ACK_BYTES) this.ack(state);
    else if (this.link !== "offline" && this.link !== "closed") state.ackDue ??= now + ACK_DELAY;
  }

  private ack(state: LaneState): void {
    state.unacked = state.unackedBytes = 0;
    state.ackDue = undefined;
    if (!state.cursor || (this.link !== "asking" && this.link !== "following")) return;
    this.counts.acks += 1;
    const [epoch, offset] = state.cursor;
    this.effects.push({
      kind: "ack",
      payload: { stream: this.stream, lane: state.lane, epoch, offset },
    });
  }

  private judgeTail(now: number, state: LaneState): void {
    state.tailDue = undefined;
    if (state.tail === undefined || state.offset >= state.tail) state.tail = undefined;
    else if (state.busy || state.unacked > 0 || now < state.lastArrival + TAIL_DELAY) {
      const quiet = state.lastArrival + TAIL_DELAY;
      state.tailDue = quiet > now ? quiet : now + TAIL_DELAY;
    } else {
      state.tail = undefined;
      this.askAgain(now);
    }
  }

  // The frame

  private states(): readonly LaneState[] {
    return LANES.map((lane) => this.lanes[lane]);
  }

  private stray(): boolean {
    if (this.link === "asking") return false;
    this.counts.straysDropped += 1;
    return true;
  }

  private tell(told: Told): void {
    this.effects.push({ kind: "told", told });
  }

  private move(input: Input): void {
    const target = TRANSITIONS[this.link][input];
    if (target === undefined) throw new IllegalInput(`${input} while ${this.link}`);
    this.link = target;
  }

  private inHand(lane: Lane): LaneState {
    const state = this.lanes[lane];
    if (state.turn.length === 0) throw new IllegalInput(`no event of the ${lane} lane is in hand`);
    return state;
  }

  private drain(): Effect[] {
    const { effects } = this;
    this.effects = [];
    return effects;
  }
}
