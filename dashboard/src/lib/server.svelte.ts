/** What the server says beside the streams: which streams there are, whether it is ready, whether we may come in. */

import type { Address } from "./address.js";
import { parseStreams, problemOf, type Stream } from "./streams.js";

/** Milliseconds between two looks, and while there is no event yet. */
const POLL = 5_000;
const POLL_EMPTY = 2_000;
/** Milliseconds after which a look is given up. */
const PATIENCE = 4_000;

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

export class Server {
  /** Null before the first answer. */
  streams: readonly Stream[] | null = $state.raw(null);
  /** The server asks for a token. */
  locked = $state(false);
  /** What is wrong with it, in its own words. */
  trouble: string | null = $state(null);
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly address: Address) {}

  /** Look now, and again while the page can be seen; returns what ends it. */
  watch(): () => void {
    const look = () => {
      if (document.visibilityState === "visible") void this.look();
    };
    document.addEventListener("visibilitychange", look);
    look();
    return () => {
      document.removeEventListener("visibilitychange", look);
      clearTimeout(this.timer);
    };
  }

  /** Hand the token over; gives what is wrong, or null. The cookie that comes back can't be read here. */
  async login(token: string): Promise<string | null> {
    const answer = await this.ask("v1/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    });
    if (!answer) return "The server can't be reached.";
    if (answer.status >= 300) return problemOf(answer.body, answer.status);
    await this.look();
    return null;
  }

  /** Whether one who shows nothing is refused. */
  async wantsToken(): Promise<boolean> {
    const answer = await this.ask("v1/streams", { credentials: "omit" });
    return answer?.status === 401;
  }

  private async look(): Promise<void> {
    clearTimeout(this.timer);
    const [streams, ready] = await Promise.all([this.ask("v1/streams"), this.ask("readyz")]);
    if (streams) this.take(streams, ready);
    clearTimeout(this.timer);
    if (document.visibilityState !== "visible") return;
    const empty = this.streams?.every(({ events }) => events === 0);
    this.timer = setTimeout(() => void this.look(), empty ? POLL_EMPTY : POLL);
  }

  private take(streams: Answer, ready: Answer | null): void {
    this.locked = streams.status === 401;
    if (streams.status === 200) this.streams = parseStreams(streams.body);
    const wrong = [streams, ready].find((answer) => answer && answer.status >= 400);
    this.trouble = wrong && !this.locked ? problemOf(wrong.body, wrong.status) : null;
  }

  /** Ask; null where nobody answers, which is the pill's business. */
  private async ask(path: string, options: RequestInit = {}): Promise<Answer | null> {
    try {
      const url = `${this.address.base}${path}`;
      const response = await fetch(url, { ...options, signal: AbortSignal.timeout(PATIENCE) });
      const text = await response.text();
      return { status: response.status, body: text ? JSON.parse(text) : null };
    } catch {
      return null;
    }
  }
}
