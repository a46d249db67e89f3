/** A network of fake sockets for the shell: every socket that was ever opened is seen, and moved by hand. */

import { vi } from "vitest";
import type { SocketClientOptions } from "../src/options.js";
import type { SocketLike, SocketOptions } from "../src/platform.js";
import { SocketClient } from "../src/socket_client.js";
import type { Lane, LaneAnswer, StreamEvent } from "../src/wire.js";

type Heard = (...args: unknown[]) => void;

export interface Sent {
  readonly event: string;
  readonly args: readonly unknown[];
  readonly ack: ((answer: unknown) => void) | undefined;
}

export class FakeSocket implements SocketLike {
  connected = false;
  /** `new`, then `connecting`, then `open`; `shut` by the client, `gone` by the network or server. */
  phase: "new" | "connecting" | "open" | "shut" | "gone" = "new";
  readonly sendBuffer: unknown[] = [];
  readonly sent: Sent[] = [];
  private readonly heard = new Map<string, Heard[]>();
  private any: Heard[] = [];

  constructor(
    readonly url: string | undefined,
    readonly options: SocketOptions,
  ) {}

  emit(event: string, ...args: unknown[]): this {
    // As a real one does: it throws for what is no JSON.
    JSON.stringify(args);
    const last = args.at(-1);
    const ack = typeof last === "function" ? (last as (answer: unknown) => void) : undefined;
    this.sent.push({ event, args: ack ? args.slice(0, -1) : args, ack });
    return this;
  }

  on(event: string, listener: (...args: never[]) => void): this {
    this.heard.set(event, [...(this.heard.get(event) ?? []), listener as Heard]);
    return this;
  }

  onAny(listener: (event: string, ...args: unknown[]) => void): this {
    this.any.push(listener as Heard);
    return this;
  }

  offAny(): this {
    this.any = [];
    return this;
  }

  removeAllListeners(): this {
    this.heard.clear();
    return this;
  }

  connect(): this {
    this.phase = "connecting";
    return this;
  }

  disconnect(): this {
    this.connected = false;
    if (this.phase !== "gone") this.phase = "shut";
    return this;
  }

  get auth(): unknown {
    return this.options.auth;
  }

  // What the server and the network do

  accept(): this {
    this.phase = "open";
    this.connected = true;
    this.tell("connect");
    return this;
  }

  welcome(version = 1): this {
    return this.receive("welcome", { version, node: "n1" });
  }

  receive(event: string, ...args: unknown[]): this {
    for (const listener of this.any) listener(event, ...args);
    return this;
  }

  drop(reason = "transport close"): this {
    this.connected = false;
    this.phase = "gone";
    this.tell("disconnect", reason);
    return this;
  }

  fail(): this {
    this.phase = "gone";
    this.tell("connect_error", new Error("websocket error"));
    return this;
  }

  refuse(message: string, data?: unknown): this {
    this.phase = "gone";
    this.tell("connect_error", Object.assign(new Error(message), { data }));
    return this;
  }

  /** What was sent of one event, oldest first. */
  all(event: string): Sent[] {
    return this.sent.filter((each) => each.event === event);
  }

  last(event: string): Sent {
    const sent = this.all(event).at(-1);
    if (!sent) throw new Error(`no ${event} was sent`);
    return sent;
  }

  private tell(event: string, ...args: unknown[]): void {
    for (const listener of this.heard.get(event) ?? []) listener(...args);
  }
}

export class FakeNet {
  readonly sockets: FakeSocket[] = [];
  readonly reported: unknown[] = [];
  wake: () => void = () => undefined;
  /** What every draw of chance gives. */
  chance = 0.5;
  private uuids = 0;

  /** `name` begins the ids that its clients mint. */
  constructor(private readonly name = "id") {}

  client(options: SocketClientOptions = {}, url = "http://server"): SocketClient {
    return new SocketClient(url, {
      ...options,
      platform: {
        now: () => performance.now(),
        random: () => this.chance,
        uuid: () => `${this.name}-${++this.uuids}`,
        date: () => "2026-01-01T00:00:00.000Z",
        socket: (url, given) => this.open(url, given),
        report: (error) => this.reported.push(error),
        onWake: (wake) => {
          this.wake = wake;
          return () => {
            this.wake = () => undefined;
          };
        },
      },
    });
  }

  get socket(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  /** Sockets that are connecting or open now. */
  get alive(): number {
    return this.sockets.filter(({ phase }) => phase === "connecting" || phase === "open").length;
  }

  /** Accept the newest socket and say welcome. */
  up(): FakeSocket {
    return this.socket.accept().welcome();
  }

  private open(url: string | undefined, options: SocketOptions): FakeSocket {
    const socket = new FakeSocket(url, options);
    this.sockets.push(socket);
    return socket;
  }
}

export async function pass(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

export function event(offset: number, lane: Lane = "normal"): StreamEvent {
  const time = "2026-01-01T00:00:00Z";
  const id = `${lane[0]}${offset}`;
  return { offset, id, source: "test", type: "t", time, priority: lane, data: { offset } };
}

export function batch(after: number, upto: number, lane: Lane = "normal", epoch = "e1") {
  const events = Array.from({ length: upto - after }, (_, index) => event(after + 1 + index, lane));
  return { stream: "s", lane, epoch, after, upto, events };
}

export function lanes(normal: Partial<LaneAnswer> = {}, critical: Partial<LaneAnswer> = {}) {
  const quiet = { status: "new", cursor: ["e1", 0], head: ["e1", 0], behind: 0 };
  return {
    ok: true,
    lanes: { critical: { ...quiet, ...critical }, normal: { ...quiet, ...normal } },
  };
}
