/**
 * The receiver's rule: a subscriber's side of one stream, both lanes. Pure; times in milliseconds.
 *
 * Inputs come with `now`; effects come back in order. The shell reports each `deliver` as `handled` or
 * `failed`, and re-arms one timer from `nextDeadline`. Each lane has a cursor, an inbox and a batch in hand.
 */

import { Backoff } from "./backoff.js";
import { type Counts, type Effect, noCounts, type Progress, type Told } from "./effects.js";
import { IllegalInput } from "./errors.js";
import { ReceivingLane } from "./receiving.js";
import {
  type Batch,
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
  private readonly lanes: { readonly [lane in Lane]: ReceivingLane };
  private due: number | undefined;
  private repairing = false;
  private tries = 0;
  private behind: number | null = null;
  private replayedBefore = 0;
  private effects: Effect[] = [];

  constructor(
    readonly stream: string,
    { from = "end", cursors = {}, backoff = new Backoff({ cap: 30_000 }) }: ReceiverOptions = {},
  ) {
    this.from = from;
    this.backoff = backoff;
    this.lanes = {
      critical: new ReceivingLane("critical", cursors.critical),
      normal: new ReceivingLane("normal", cursors.normal),
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

  /** How many events wait for their turn or are being handled. */
  get pending(): number {
    return this.states().reduce((sum, state) => sum + state.pending, 0);
  }

  /** The events of the lane's batch in hand, the one that is being handled first. */
  turn(lane: Lane): readonly StreamEvent[] {
    return this.lanes[lane].turn;
  }

  /** Whether the log of what is in hand, or the subscription, is no more: a failure isn't tried again. */
  isCutOff(lane: Lane): boolean {
    return this.link === "closed" || this.lanes[lane].reset !== undefined;
  }

  nextDeadline(): number | undefined {
    const times = [this.due, ...this.states().flatMap((s) => [s.ackDue, s.tailDue])];
    const set = times.filter((time) => time !== undefined);
    return set.length > 0 ? Math.min(...set) : undefined;
  }

  // What comes in

  /** The handler takes the first `count` events of the batch in hand at once, and reports each of them. */
  take(lane: Lane, count: number): void {
    this.lanes[lane].taken = count;
  }

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
      this.counts.cutDropped += state.cutInbox();
      state.reset = undefined;
      state.wasReset = false;
      state.ackDue = state.tailDue = state.tail = undefined;
    }
  }

  /** End the subscription; what a handler is at work on is the last that moves a cursor. */
  close(): void {
    this.move("close");
    this.due = undefined;
    for (const state of this.states()) {
      this.counts.cutDropped += state.cutTurn();
      state.reset = undefined;
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
    for (const state of this.states()) {
      const answer = answers[state.lane];
      if (answer) this.settle(state, answer);
      state.lastArrival = now;
      state.tail = state.tailDue = undefined;
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
    const { length } = batch.events;
    this.counts.received += length;
    if (this.link === "closed" || this.link === "offline") {
      this.counts.straysDropped += length;
      return [];
    }
    state.lastArrival = now;
    if (state.fullFor(batch)) {
      this.counts.fullDropped += length;
      return [];
    }
    state.inbox.push(batch);
    state.inboxEvents += length;
    this.nextTurn(now, state);
    return this.drain();
  }

  /** The handler of the lane's event returned: the cursor moves. */
  handled(now: number, lane: Lane): Effect[] {
    const state = this.inHand(lane);
    this.counts.applied += 1;
    return this.step(now, state);
  }

  /** The handler failed: it is run again; after the third time the event is passed over. */
  failed(now: number, lane: Lane): Effect[] {
    const state = this.inHand(lane);
    const event = state.turn[0];
    if (!event || this.isCutOff(lane)) return this.giveUp(now, state);
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
      if (state.epoch !== undefined && epoch !== state.epoch) this.askAgain(now);
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

  private nextTurn(now: number, state: ReceivingLane): void {
    while (state.turn.length === 0) {
      const batch = state.inbox.shift();
      if (!batch) return;
      state.inboxEvents -= batch.events.length;
      this.judge(now, state, batch);
    }
  }

  private judge(now: number, state: ReceivingLane, batch: Batch): void {
    const { cursor } = state;
    if (!cursor) this.counts.straysDropped += batch.events.length;
    else if (batch.epoch !== cursor[0] || batch.after > cursor[1]) {
      this.counts.straysDropped += batch.events.length;
      this.askAgain(now);
    } else if (batch.upto <= cursor[1]) {
      this.counts.duplicatesDropped += batch.events.length;
      this.ack(state);
    } else {
      const fresh = batch.events.filter((event) => event.offset > cursor[1]);
      this.counts.duplicatesDropped += batch.events.length - fresh.length;
      this.begin(now, state, fresh, batch.upto);
    }
  }

  private begin(now: number, state: ReceivingLane, fresh: StreamEvent[], upto: number): void {
    state.turn = fresh;
    state.turnUpto = upto;
    state.attempt = 0;
    if (fresh.length > 0) this.deliver(state);
    else {
      this.pass(state, upto);
      this.oweAck(now, state, 0, 0);
    }
  }

  private deliver(state: ReceivingLane): void {
    const event = state.turn[0];
    if (!event || !state.cursor) return;
    state.attempt += 1;
    state.taken = 1;
    const { lane, attempt } = state;
    this.effects.push({ kind: "deliver", lane, epoch: state.cursor[0], event, attempt });
  }

  /** Move the cursor over the event in hand and go on with the next one. */
  private step(now: number, state: ReceivingLane): Effect[] {
    const event = state.turn.shift();
    state.attempt = 0;
    if (event && state.cursor) {
      if (event.offset <= state.replayUpto) this.counts.replayed += 1;
      state.cursor = [state.cursor[0], event.offset, event.id];
      if (state.turn.length > 0) this.deliver(state);
      else this.pass(state, state.turnUpto);
      this.oweAck(now, state, 1, sizeOf(event));
    }
    this.finishReset(state);
    this.nextTurn(now, state);
    return this.drain();
  }

  /** Move the cursor to the end of a batch whose last offsets hold no event. */
  private pass(state: ReceivingLane, upto: number): void {
    if (state.cursor && upto > state.cursor[1]) state.cursor = [state.cursor[0], upto];
  }

  /** Drop what the failed handler has: its log or the subscription is no more. */
  private giveUp(now: number, state: ReceivingLane): Effect[] {
    this.counts.cutDropped += state.turn.length;
    state.turn = [];
    this.finishReset(state);
    this.nextTurn(now, state);
    return this.drain();
  }

  /** Take a lane's answer: `resumed` never moves the cursor, and within an epoch nothing moves it back. */
  private settle(state: ReceivingLane, answer: LaneAnswer): void {
    const { status, cursor: told, behind } = answer;
    this.behind = this.behind === null || behind === null ? null : this.behind + behind;
    state.reset = undefined;
    if (status === "reset" && !state.isLate(answer)) {
      this.counts.cutDropped += state.cutTurn();
      state.reset = answer;
      this.finishReset(state);
      return;
    }
    if (!state.cursor) state.cursor = told;
    else if ((status === "trimmed" || status === "reset") && told[0] === state.cursor[0])
      this.skipLoss(state, answer);
    state.replayUpto = answer.head[1];
  }

  /** Go on in the other log once nothing of the old one is in hand: clearing then clears it all. */
  private finishReset(state: ReceivingLane): void {
    if (!state.reset || state.turn.length > 0) return;
    const { cursor, head } = state.reset;
    state.reset = undefined;
    state.wasReset = true;
    this.counts.resets += 1;
    this.tell({ kind: "reset", lane: state.lane });
    state.cursor = cursor;
    state.replayUpto = head[1];
    state.unacked = state.unackedBytes = 0;
    state.ackDue = undefined;
  }

  /**
   * Tell what is gone, then let the cursor pass it; what is in hand is done first, and isn't lost. The answer's
   * `lost` counts from the cursor that was sent, and more may have been applied since.
   */
  private skipLoss(state: ReceivingLane, answer: LaneAnswer): void {
    const { cursor: told, behind } = answer;
    const [first, last] = [state.reach + 1, told[1]];
    if (first > last) return;
    const maybe = answer.maybe === true || behind === null;
    if (!maybe) this.counts.lost += last - first + 1;
    this.tell({ kind: "trimmed", lane: state.lane, lost: [first, last], maybe });
    if (state.turn.length > 0) state.turnUpto = last;
    else state.cursor = told;
  }

  // Asking and acking

  private ask(now: number): void {
    this.due = now + ANSWER_DELAY;
    this.behind = null;
    this.replayedBefore = this.counts.replayed;
    const payload = { stream: this.stream, cursors: this.cursors, from: this.from };
    this.effects.push({ kind: "subscribe", payload });
  }

  /** Repair from the cursor, unless a subscribe is under way or was refused. */
  private askAgain(now: number): void {
    if (this.link !== "following") return;
    this.repairing = true;
    this.move("ask");
    this.ask(now);
  }

  private oweAck(now: number, state: ReceivingLane, events: number, bytes: number): void {
    state.unacked += events;
    state.unackedBytes += bytes;
    if (state.unacked >= ACK_EVENTS || state.unackedBytes >= ACK_BYTES) this.ack(state);
    else if (this.link !== "offline" && this.link !== "closed") state.ackDue ??= now + ACK_DELAY;
  }

  private ack(state: ReceivingLane): void {
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

  private judgeTail(now: number, state: ReceivingLane): void {
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

  private states(): readonly ReceivingLane[] {
    return LANES.map((lane) => this.lanes[lane]);
  }

  private stray(): boolean {
    if (this.link === "asking") return false;
    this.counts.answersDropped += 1;
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

  private inHand(lane: Lane): ReceivingLane {
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
