/** `SocketClient`: one connection to a Steadcast or plain Socket.IO server, kept up, with what goes over it. */

import { Alarm } from "./alarm.js";
import { Backoff } from "./backoff.js";
import { Connection, type ConnectionEffect } from "./connection.js";
import { Emissions, type EmitOptions, emissionOf } from "./emissions.js";
import { InvalidRequest, SteadcastError } from "./errors.js";
import { Health } from "./health.js";
import { type Hearer, hear } from "./hear.js";
import { type Listener, Listeners, Observed } from "./listeners.js";
import { metricsOf } from "./metrics.js";
import {
  type ClientSnapshot,
  type ClientState,
  type ConnectionMetrics,
  checkOptions,
  healthOptions,
  numberFrom,
  outboxOptions,
  type SocketClientOptions,
  setting,
} from "./options.js";
import { type CursorStore, Keeping } from "./persist.js";
import { PLATFORM, type Platform } from "./platform.js";
import { Retired } from "./retired.js";
import { type SubscribeOptions, Subscription } from "./subscription.js";
import { PACKAGE_VERSION } from "./version.js";
import {
  type Batch,
  fillEvent,
  type Goaway,
  isStreamName,
  type NewEvent,
  type Ping,
  parseReceipts,
  type Receipt,
  type Refusal,
  VERSION,
  type Welcome,
} from "./wire.js";
import { WireSocket } from "./wire_socket.js";

/** A server that speaks the protocol says welcome at once; the queue waits for it so long, for the ids' sake. */
const WELCOME_WAIT = 1_000;

export class SocketClient {
  /** Retries after the failed first try. */
  maxRetryAttempts: number;
  /** Milliseconds before each retry. */
  retryDelays: readonly number[];
  /** Names this client in the server's statistics. */
  readonly id: string;
  private readonly platform: Platform;
  private readonly connection: Connection;
  private readonly health: Health;
  private readonly emissions: Emissions;
  private readonly wire: WireSocket;
  private readonly listeners: Listeners;
  private readonly observed: Observed<ClientSnapshot>;
  private readonly subscriptions = new Map<string, Subscription>();
  private readonly keeping: Keeping;
  private readonly retired = new Retired();
  private readonly hearer: Hearer = {
    welcome: (welcome) => this.welcome(welcome),
    batch: (batch) => this.batch(batch),
    ping: (ping) => this.ping(ping),
    goaway: (goaway) => this.goaway(goaway),
    error: (refusal) => this.failed(refusal),
  };
  private readonly stopWaking: () => void;
  private welcomed = false;
  /** Whether the listeners heard the `connect` of this connection. */
  private told = false;
  private welcomeDue: number | undefined;
  private node: string | null = null;
  private refusal: Refusal | null = null;
  private leaving: string | null = null;
  private malformed = 0;
  private queueReady: boolean;
  private ended = false;
  private readonly alarm: Alarm;

  /** @param url the server; default the page's own */
  constructor(
    url?: string,
    private readonly options: SocketClientOptions = {},
  ) {
    checkOptions(url, options);
    this.platform = { ...PLATFORM, ...options.platform };
    this.maxRetryAttempts = options.maxRetryAttempts ?? 3;
    this.retryDelays = options.retryDelays ?? [1_000, 2_000, 4_000];
    this.id = options.clientId ?? this.platform.uuid();
    const { reconnectDelay: base = 1_000, reconnectDelayMax: cap = 15_000 } = options;
    this.alarm = new Alarm(this.platform, () => this.tick());
    this.keeping = new Keeping(options.place, this.platform.uuid);
    this.connection = new Connection({ backoff: new Backoff({ base, cap }) });
    this.health = new Health(healthOptions(options));
    this.listeners = new Listeners(this.platform.report);
    this.observed = new Observed(() => this.take(), this.platform.report);
    this.emissions = new Emissions(this.emissionsHost(), outboxOptions(options));
    this.wire = new WireSocket(this.wireOptions(url), this.platform, {
      accepted: () => this.accepted(),
      ended: (event, detail, refusal) => this.lost(event, detail, refusal),
      message: (event, args) => this.message(event, args),
    });
    this.stopWaking = this.platform.onWake(() => this.wake());
    this.queueReady = !options.persistQueue;
    if (options.persistQueue) void this.keepQueue(options.persistQueue);
    if (options.autoConnect ?? true) this.connect();
  }

  // Settings that the specification names as fields

  /** Emissions that wait for a connection; more evict the oldest normal one. */
  get maxQueueSize(): number {
    return this.emissions.outbox.maxQueueSize;
  }

  set maxQueueSize(size: number) {
    this.emissions.outbox.maxQueueSize = setting("maxQueueSize", size);
  }

  /** Milliseconds without a ping after which a connection is stale. */
  get pingTimeout(): number {
    return this.health.pingTimeout;
  }

  set pingTimeout(timeout: number) {
    this.health.pingTimeout = setting("pingTimeout", timeout);
  }

  // The connection

  get connected(): boolean {
    return this.connection.state === "online";
  }

  /** Connect, or try again after a refusal; nothing happens while a connection is there or on its way. */
  connect(): this {
    if (this.ended) throw new InvalidRequest("a client that was closed doesn't connect again");
    if (!this.wire.placed) throw new InvalidRequest("where there is no page, a URL is needed");
    this.obey(this.connection.open(this.now()));
    return this;
  }

  /** Go offline until `connect`; subscriptions, cursors and the queue are kept. */
  disconnect(): this {
    this.emissions.outbox.disconnected(true);
    const effects = this.connection.close(this.now());
    if (this.told) this.obeyAndTell(effects, "io client disconnect");
    else this.obey(effects);
    return this;
  }

  /**
   * Cut this connection as a network does, and come back no sooner than after so many seconds: to see or test
   * that nothing is lost. Nothing happens while there is no connection.
   */
  cut(seconds: number): this {
    numberFrom(0, seconds, "seconds");
    if (!this.connected) return this;
    this.emissions.outbox.disconnected(true);
    const effects = this.connection.lost(this.now(), this.platform.random(), seconds * 1_000);
    this.obeyAndTell(effects, "cut");
    return this;
  }

  /** End everything: subscriptions, the queue, the connection. */
  close(): void {
    if (this.ended) return;
    for (const subscription of [...this.subscriptions.values()]) subscription.unsubscribe();
    this.ended = true;
    this.disconnect();
    this.emissions.close();
    this.wire.forsakeHeld();
    this.stopWaking();
    this.changed();
  }

  /** The same object until something changed. */
  snapshot(): ClientSnapshot {
    return this.observed.snapshot();
  }

  /** Call back after changes, at most once a microtask; returns what ends it. */
  onChange(watcher: () => void): () => void {
    return this.observed.onChange(watcher);
  }

  /** What the connection and what goes over it did so far. */
  getConnectionMetrics(): ConnectionMetrics {
    const { connection, health, emissions, wire, malformed } = this;
    return {
      ...metricsOf({ connection, health, emissions, wire }, this.now()),
      ...this.retired.sum(this.subscriptions.values()),
      malformed,
    };
  }

  // Plain Socket.IO

  /** Listen to an event, `connect`, `disconnect` and `connect_error` included; outlives every socket. */
  on(event: string, listener: Listener): this {
    this.listeners.add(event, listener);
    return this;
  }

  once(event: string, listener: Listener): this {
    this.listeners.add(event, listener, true);
    return this;
  }

  off(event?: string, listener?: Listener): this {
    this.listeners.remove(event, listener);
    return this;
  }

  /** Emit as Socket.IO does: at most once, without retry. Held while there is no connection. */
  emit(event: string, ...args: unknown[]): this {
    if (!this.ended) this.wire.emitOrHold(event, args);
    return this;
  }

  // With acknowledgement, retry and queue

  /**
   * Emit until the server acknowledges it, and resolve with its answer. While there is no connection it is queued.
   * Rejects with `EmissionFailed`; what has failed is never sent again.
   */
  emitWithRetry(event: string, data?: unknown, options: EmitOptions = {}): Promise<unknown> {
    if (this.ended) throw new InvalidRequest("the client is closed");
    const what = { id: this.platform.uuid(), event, data };
    return this.emissions.emit(emissionOf(what, options, this), options);
  }

  /** Publish events durably; the ids are set here once, so a retry never doubles. */
  async publish(
    stream: string,
    events: NewEvent | readonly NewEvent[],
    options: EmitOptions = {},
  ): Promise<readonly Receipt[]> {
    const list = (Array.isArray(events) ? events : [events]) as readonly NewEvent[];
    const full = list.map((event) => this.fill(event));
    const critical = full.some((event) => event.priority === "critical");
    const priority = options.priority ?? (critical ? "critical" : "normal");
    const payload = { stream, events: full };
    const answer = await this.emitWithRetry("publish", payload, { ...options, priority });
    const receipts = parseReceipts(answer);
    if (!receipts)
      throw new SteadcastError("the server's answer has no positions", "not_steadcast");
    return receipts;
  }

  // Streams

  /** Follow a stream; one subscription per stream at a time. */
  subscribe(stream: string, options: SubscribeOptions = {}): Subscription {
    if (this.ended) throw new InvalidRequest("the client is closed");
    if (!isStreamName(stream)) throw new InvalidRequest(`not a stream's name: ${stream}`);
    if (this.subscriptions.has(stream)) throw new InvalidRequest(`already subscribed: ${stream}`);
    const subscription = new Subscription(
      stream,
      options,
      this.host(),
      this.store(stream, options),
    );
    this.subscriptions.set(stream, subscription);
    if (this.welcomed) subscription.connected(this.now());
    return subscription;
  }

  // What the socket reports

  private accepted(): void {
    if (this.connected) return;
    const now = this.now();
    this.connection.accepted(now);
    this.refusal = null;
    this.leaving = null;
    this.welcomeDue = now + WELCOME_WAIT;
    this.wire.flushHeld();
    this.told = true;
    this.listeners.call("connect", []);
    this.changed();
  }

  private lost(event: string, detail: unknown, refusal: Refusal | undefined): void {
    const now = this.now();
    if (refusal) this.refusal = refusal;
    const again = (refusal?.retryAfter ?? 0) * 1_000;
    const permanent = refusal && !refusal.temporary;
    this.obey(
      permanent
        ? this.connection.refused(now, refusal)
        : this.connection.lost(now, this.platform.random(), again),
    );
    this.listeners.call(event, [detail]);
  }

  private message(event: string, args: readonly unknown[]): void {
    // What a server emits from within its connect handler is heard just before `connect` is.
    this.accepted();
    if (!this.connected) return; // a listener of `connect` ended it
    // Before the welcome nothing is of our protocol: a plain server's own `ping` or `error` is left alone.
    const ours = event === "welcome" ? !this.welcomed : this.welcomed;
    if (ours && !hear(event, args[0], this.hearer)) this.malformed += 1;
    this.listeners.call(event, args);
    this.changed();
  }

  private welcome({ version, node, pingInterval = 0 }: Welcome): void {
    // A server of another version is treated as a plain Socket.IO server: nothing of ours is said to it.
    if (version !== VERSION) return;
    const now = this.now();
    this.welcomed = true;
    this.welcomeDue = undefined;
    this.node = node;
    this.health.welcomed(now, pingInterval * 1_000);
    for (const subscription of this.subscriptions.values()) subscription.connected(now);
    this.ready(now);
  }

  private batch(batch: Batch): void {
    this.subscriptions.get(batch.stream)?.received(this.now(), batch);
  }

  private ping({ time, heads }: Ping): void {
    const now = this.now();
    this.health.pinged(now);
    this.wire.emit("pong", [{ time }]);
    for (const [stream, lanes] of heads) this.subscriptions.get(stream)?.pinged(now, lanes);
  }

  private goaway({ reason, reconnectIn: [min, max] }: Goaway): void {
    this.leaving = reason;
    this.connection.goaway(this.now(), min * 1_000, max * 1_000, this.platform.random());
  }

  private failed(refusal: Refusal): void {
    this.refusal = refusal;
    // The next connect asks for a fresh token; cursors and outbox are kept.
    if (["token_expired", "token_revoked"].includes(refusal.code)) this.cycle(refusal.code);
  }

  // Time

  private tick(): void {
    const now = this.now();
    if (this.health.handleTimeout(now)) this.cycle("stale");
    const why = this.connected ? "goaway" : new Error("timeout");
    this.obeyAndTell(this.connection.handleTimeout(now, this.platform.random()), why);
    if (this.welcomeDue !== undefined && this.welcomeDue <= now) {
      // No welcome came: the server is a plain Socket.IO one.
      this.welcomeDue = undefined;
      this.ready(now);
    }
    this.emissions.run(this.emissions.outbox.handleTimeout(now));
    for (const subscription of this.subscriptions.values()) subscription.handleTimeout(now);
    this.arm();
  }

  private arm(): void {
    this.alarm.later(() => {
      if (this.ended) return [];
      const { connection, health, emissions, subscriptions } = this;
      const own = [connection, health, emissions.outbox].map((each) => each.nextDeadline());
      const followed = [...subscriptions.values()].map((each) => each.nextDeadline());
      return [...own, this.welcomeDue, ...followed];
    });
  }

  // The frame

  private now(): number {
    return this.platform.now();
  }

  private wake(): void {
    this.obey(this.connection.wake(this.now()));
  }

  private cycle(why: string): void {
    const { connection, platform } = this;
    this.obeyAndTell(connection.cycle(this.now(), platform.random(), why === "stale"), why);
  }

  /** Obey, and tell of an end that this side made as of one that the network made. */
  private obeyAndTell(effects: readonly ConnectionEffect[], why: unknown): void {
    const event = this.told ? "disconnect" : "connect_error";
    this.obey(effects);
    if (effects.includes("shut")) this.listeners.call(event, [why]);
  }

  private obey(effects: readonly ConnectionEffect[]): void {
    // A connection that gave itself up (a goaway, a connect without answer) ends what went over it.
    if (effects.includes("shut")) this.endSession();
    for (const effect of effects) {
      if (effect === "open") this.wire.open();
      else this.wire.shut();
    }
    for (const subscription of this.subscriptions.values()) subscription.changed();
    this.changed();
  }

  private endSession(): void {
    this.welcomed = this.told = false;
    this.welcomeDue = undefined;
    this.node = null;
    this.health.disconnected();
    this.emissions.outbox.disconnected();
    for (const subscription of this.subscriptions.values()) subscription.disconnected();
  }

  /** The queue may go out: the welcome came, or it doesn't come; and what was kept is read. */
  private ready(now: number): void {
    if (!this.queueReady) return;
    this.emissions.run(this.emissions.outbox.connected(now, this.welcomed));
  }

  private fill(event: NewEvent): NewEvent {
    const source = this.options.source ?? `/clients/${this.id}`;
    return fillEvent(event, { id: this.platform.uuid(), source, time: this.platform.date() });
  }

  private async keepQueue(name: boolean | string): Promise<void> {
    try {
      await this.emissions.keepIn(await this.keeping.queue(name));
    } catch {
      // Counted, and told by the metrics: the queue works, but it doesn't outlive a reload.
      this.emissions.keepFailures += 1;
    }
    this.queueReady = true;
    if (this.connected && this.welcomeDue === undefined) this.ready(this.now());
  }

  private store(stream: string, { persist }: SubscribeOptions): Promise<CursorStore> | undefined {
    if (!persist) return undefined;
    if (typeof persist === "object") return Promise.resolve(persist);
    return this.keeping.cursors(persist === true ? stream : `${persist}:${stream}`);
  }

  private wireOptions(url: string | undefined) {
    const { path, token, socket = {} } = this.options;
    return { url, path, token, socket, client: { id: this.id, version: PACKAGE_VERSION } };
  }

  private emissionsHost() {
    return {
      now: () => this.now(),
      changed: () => this.changed(),
      report: (error: unknown) => this.platform.report(error),
      send: (event: string, args: readonly unknown[], answered: (answer: unknown) => void) => {
        this.wire.emit(event, [...args, answered]);
      },
    };
  }

  private host() {
    return {
      away: () => this.away(),
      now: () => this.now(),
      random: () => this.platform.random(),
      report: (error: unknown) => this.platform.report(error),
      changed: () => this.changed(),
      send: (event: string, payload: unknown, answered?: (answer: unknown) => void) => {
        this.wire.emit(event, answered ? [payload, answered] : [payload]);
      },
      left: (subscription: Subscription) => this.left(subscription),
    };
  }

  private left(subscription: Subscription): void {
    this.subscriptions.delete(subscription.stream);
    this.retired.add(subscription);
    if (this.welcomed) this.wire.emit("unsubscribe", [{ stream: subscription.stream }]);
  }

  private away(): "offline" | "stale" | undefined {
    if (this.welcomed) return undefined;
    return this.connection.stale ? "stale" : "offline";
  }

  private take(): ClientSnapshot {
    const { welcomed, node, refusal: error, leaving: goaway } = this;
    return { state: this.state(), welcomed, node, error, goaway };
  }

  private state(): ClientState {
    const { state, stale } = this.connection;
    if (stale) return "stale";
    return state === "waiting" ? "offline" : state;
  }

  private changed(): void {
    this.observed.changed();
    this.arm();
  }
}
