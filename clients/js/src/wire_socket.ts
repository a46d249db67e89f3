/** The one socket: opened with a fresh token, torn down whole. What comes from an old one is never heard. */

import { addressOf } from "./address.js";
import type { TokenSource } from "./options.js";
import type { Platform, SocketLike, SocketOptions } from "./platform.js";
import { isObject, parseRefusal, type Refusal } from "./wire.js";

/** Plain emissions that wait for a connection; more push the oldest out. */
const HELD_LIMIT = 1_000;

export interface WireSocketHost {
  accepted(): void;
  /** The connection ended, or couldn't be had; a refusal is the server's word. */
  ended(event: "disconnect" | "connect_error", detail: unknown, refusal: Refusal | undefined): void;
  message(event: string, args: readonly unknown[]): void;
}

export interface WireSocketOptions {
  readonly url: string | undefined;
  readonly path: string | undefined;
  readonly token: TokenSource | undefined;
  readonly client: { readonly id: string; readonly version: string };
  readonly socket: SocketOptions;
}

export class WireSocket {
  tokenFailures = 0;
  /** Plain emissions that were pushed out while they waited for a connection, or couldn't be sent then. */
  emitsDropped = 0;
  private held: (readonly [string, readonly unknown[]])[] = [];
  private socket: SocketLike | undefined;
  /** Names the connect: a token that comes for an older one is dropped. */
  private serial = 0;

  constructor(
    private readonly options: WireSocketOptions,
    private readonly platform: Platform,
    private readonly host: WireSocketHost,
  ) {}

  /** Whether it is known where to connect: without a URL that is the page's server, and there is a page. */
  get placed(): boolean {
    return this.options.url !== undefined || globalThis.location !== undefined;
  }

  open(): void {
    this.shut();
    const { serial } = this;
    const { token } = this.options;
    if (typeof token !== "function") this.connect(token);
    else void this.openWith(token, serial);
  }

  shut(): void {
    this.serial += 1;
    const { socket } = this;
    this.socket = undefined;
    if (!socket) return;
    socket.offAny();
    socket.removeAllListeners();
    socket.disconnect();
  }

  /** Send on the open socket; false if there is none, or if it only buffered. */
  emit(event: string, args: readonly unknown[]): boolean {
    const { socket } = this;
    if (!socket?.connected) return false;
    const before = socket.sendBuffer.length;
    socket.emit(event, ...args);
    if (socket.sendBuffer.length === before) return true;
    // A socket whose death was just noticed buffers; it is about to be torn down with its buffer.
    socket.sendBuffer.length = before;
    return false;
  }

  /** Send now, or as soon as there is a connection. */
  emitOrHold(event: string, args: readonly unknown[]): void {
    if (this.emit(event, args)) return;
    this.held.push([event, args]);
    if (this.held.length <= HELD_LIMIT) return;
    this.held.shift();
    this.emitsDropped += 1;
  }

  /** Send what waited for a connection. */
  flushHeld(): void {
    const { held } = this;
    this.held = [];
    for (const [event, args] of held) this.emitLate(event, args);
  }

  /** What can't be sent (no JSON) has no caller any more who could be told. */
  private emitLate(event: string, args: readonly unknown[]): void {
    try {
      this.emitOrHold(event, args);
    } catch (error) {
      this.emitsDropped += 1;
      this.platform.report(error);
    }
  }

  /** Drop what waits, counted. */
  forsakeHeld(): void {
    this.emitsDropped += this.held.length;
    this.held = [];
  }

  private async openWith(token: Exclude<TokenSource, string>, serial: number): Promise<void> {
    let fresh: string | null | undefined;
    try {
      fresh = await token();
    } catch (error) {
      this.tokenFailures += 1;
      if (serial === this.serial) this.host.ended("connect_error", error, undefined);
      return;
    }
    if (serial === this.serial) this.connect(fresh);
  }

  private connect(token: string | null | undefined): void {
    const { client, socket: more } = this.options;
    const { url, path } = addressOf(this.options.url, this.options.path, globalThis.location?.href);
    // As from a file, or a request's answer: no token has blanks around it.
    const bare = typeof token === "string" ? token.trim() : token;
    const auth = { ...(bare && { token: bare }), client };
    const socket = this.platform.socket(url, { ...more, ...(path && { path }), auth });
    const { host } = this;
    socket.on("connect", () => host.accepted());
    socket.on("disconnect", (reason: string) => host.ended("disconnect", reason, undefined));
    socket.on("connect_error", (error: unknown) => {
      host.ended("connect_error", error, refusalIn(error));
    });
    socket.onAny((event, ...args) => host.message(event, args));
    this.socket = socket;
    socket.connect();
  }
}

/** A refused connect says `{message, data: {code, temporary}}`; without a code it is no word of ours. */
function refusalIn(error: unknown): Refusal | undefined {
  if (!isObject(error)) return undefined;
  return parseRefusal(error.data, typeof error.message === "string" ? error.message : "");
}
