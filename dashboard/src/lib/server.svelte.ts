/** What the server says beside the streams: which streams there are, whether it is ready, whether we may come in. */

import type { Address } from "./address.js";
import type { Answer, Ask, ServerAccess } from "./contract.js";
import { Listing } from "./listing.js";
import type { Live } from "./live.svelte.js";
import { ANNOUNCED, parseStreams, problemOf, type Stream } from "./streams.js";

/** Milliseconds after which a question is given up. */
const PATIENCE = 8_000;

export class Server implements ServerAccess {
  streams: readonly Stream[] | null = $state.raw(null);
  locked = $state(false);
  /** What is wrong with it, in its own words. */
  trouble: string | null = $state(null);
  /** Why this token may not even list the streams, in the server's words. */
  forbidden: string | null = $state(null);
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly listing = new Listing();
  private guarded: boolean | null = null;

  constructor(
    private readonly address: Address,
    private readonly live: Pick<Live, "follow" | "hears">,
  ) {}

  /** Look now, and again while the page can be seen; returns what ends it. */
  watch(): () => void {
    const look = () => {
      if (document.visibilityState === "visible") void this.look();
    };
    document.addEventListener("visibilitychange", look);
    const appeared = () => this.relist();
    const leave = this.live.follow(ANNOUNCED, { events: appeared, lost: appeared });
    look();
    return () => {
      leave();
      document.removeEventListener("visibilitychange", look);
      clearTimeout(this.timer);
    };
  }

  /** Hand the token over; gives what is wrong, or null. The cookie that comes back can't be read here. */
  async login(token: string): Promise<string | null> {
    const answer = await this.ask("v1/login", { body: { token } });
    if (!answer.ok) return answer.detail;
    this.listing.failed();
    await this.look();
    return null;
  }

  /** Forget the token that was given; whoever asks next is asked for one. */
  async logout(): Promise<void> {
    await this.ask("v1/logout", { method: "POST" });
  }

  /** Whether one who shows nothing is refused; asked once. */
  async wantsToken(): Promise<boolean> {
    if (this.guarded !== null) return this.guarded;
    const answer = await this.ask("v1/streams", { credentials: "omit" });
    if (answer.ok || answer.status === 401) this.guarded = !answer.ok;
    return this.guarded ?? false;
  }

  async ask(path: string, options: Ask = {}): Promise<Answer> {
    const answer = await fetched(`${this.address.base}${path}`, options);
    if (answer.status === 401 && options.credentials !== "omit") this.locked = true;
    return answer;
  }

  private async look(): Promise<void> {
    clearTimeout(this.timer);
    const [streams, ready] = await Promise.all([this.list(), this.ask("readyz")]);
    // Where nobody answers, that is the pill's business.
    if (ready.status !== 0) this.take(streams, ready);
    clearTimeout(this.timer);
    if (document.visibilityState !== "visible") return;
    const empty = this.streams?.every(({ events }) => events === 0) ?? false;
    this.timer = setTimeout(() => void this.look(), this.listing.pause(this.told, empty));
  }

  private get told(): boolean {
    return this.live.hears(ANNOUNCED);
  }

  /** Ask for the streams; null where what is known is as good. */
  private async list(): Promise<Answer | null> {
    const now = performance.now();
    if (!this.listing.due(this.told, now)) return null;
    this.listing.asked(now);
    const answer = await this.ask("v1/streams");
    if (!answer.ok) this.listing.failed();
    return answer;
  }

  /** List the streams anew, soon: some appeared, or somebody looks. */
  relist(): void {
    if (!this.listing.appeared()) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.look(), this.listing.pause(this.told, false));
  }

  private take(streams: Answer | null, ready: Answer): void {
    if (streams) this.locked = streams.status === 401;
    if (streams?.ok) this.streams = parseStreams(streams.body);
    if (streams) this.forbidden = !streams.ok && streams.status === 403 ? streams.detail : null;
    const ill = (answer: Answer | null) => answer !== null && answer.status >= 400;
    const wrong = [streams, ready].find((answer) => ill(answer) && answer?.status !== 403);
    this.trouble = wrong && !wrong.ok && !this.locked ? wrong.detail : null;
  }
}

async function fetched(url: string, options: Ask): Promise<Answer> {
  const { body, headers, method, signal, credentials } = options;
  const patience = AbortSignal.timeout(PATIENCE);
  try {
    const response = await fetch(url, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: {
        ...(body !== undefined && { "Content-Type": "application/json" }),
        ...headers,
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(credentials && { credentials }),
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
    });
    return answered(response.status, await response.text());
  } catch {
    return {
      ok: false,
      status: 0,
      code: "unreachable",
      detail: AWAY,
      temporary: true,
      problem: null,
    };
  }
}

const AWAY = "The server can't be reached.";

function answered(status: number, text: string): Answer {
  const body = parsed(text);
  if (status < 400) return { ok: true, status, body };
  const { code, temporary } = (body ?? {}) as { code?: unknown; temporary?: unknown };
  return {
    ok: false,
    status,
    code: typeof code === "string" ? code : "",
    detail: problemOf(body, status),
    temporary: temporary === true,
    problem: body,
  };
}

/** What isn't JSON (a proxy's page of its own) is handed on as text. */
function parsed(text: string): unknown {
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
