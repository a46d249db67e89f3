/** Who waits for a person, told in every view: out of what this page follows anyway, and the log before that. */

import type { Page, SeenEvent } from "./contract.js";
import { readLast } from "./log_tail.js";
import { Sessions } from "./sessions.js";
import type { Session } from "./sessions_model.js";
import { asking } from "./sessions_state.js";
import { soon } from "./soon.js";
import { HOOKS } from "./streams.js";

/** So many normal events are read where somebody asked before what this page has. */
const LAST = 4_096;
/** What is told here needs no details of a session. */
const LIMITS = { calls: 100, prompts: 1, troubles: 1, marks: 1, tools: 1 } as const;

export class Asking {
  /** The latest to ask first. */
  sessions: readonly Session[] = $state.raw([]);
  private known = new Sessions(LIMITS);
  /** From when on the page has all normal events: what was asked before may have been answered. */
  private from = Number.POSITIVE_INFINITY;
  /** The offset of the first of them. */
  private first = Number.POSITIVE_INFINITY;
  private reading = new AbortController();
  private looked = false;
  private readonly refresh = soon(() => this.take());

  constructor(private readonly page: Pick<Page, "follow" | "server">) {}

  /** Begin, or begin anew; returns what ends it. */
  watch(): () => void {
    this.forget();
    const end = this.page.follow(HOOKS, {
      events: (events) => this.heard(events),
      lost: ({ kind }) => kind === "reset" && this.forget(),
    });
    return () => {
      end();
      this.forget();
    };
  }

  private forget(): void {
    this.reading.abort();
    this.reading = new AbortController();
    this.looked = false;
    this.known = new Sessions(LIMITS);
    this.from = this.first = Number.POSITIVE_INFINITY;
    this.take();
  }

  private heard(events: readonly SeenEvent[]): void {
    this.reach(events);
    this.refresh();
  }

  private reach(events: readonly SeenEvent[]): void {
    for (const { lane, offset, publishedAt } of events) {
      if (lane !== "normal") continue;
      if (publishedAt < this.from) this.from = publishedAt; // NaN where it has no time
      this.first = Math.min(this.first, offset);
    }
    this.known.apply(events);
  }

  private take(): void {
    const sessions = this.known.list();
    const told = asking(sessions, this.from);
    // Not read back: whoever watches in an effect would begin anew with each change.
    this.sessions = told;
    const earlier = asking(sessions, 0).length > told.length;
    if (earlier && !this.looked && Number.isFinite(this.from)) void this.look();
  }

  /** Read in the log whether what was asked before the events of this page has been answered. */
  private async look(): Promise<void> {
    this.looked = true;
    const { signal } = this.reading;
    const history = await readLast(this.page.server, HOOKS, "normal", LAST, signal);
    // Nobody knows then, as before: a wrong call is worse than none.
    if (signal.aborted || history.trouble !== null) return;
    const { first } = this;
    this.reach(history.events.filter(({ offset }) => offset < first));
    if (!history.more) this.from = 0; // all that the log has is known
    this.take();
  }
}
