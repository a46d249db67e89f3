/** Who waits for a person, told in every view: out of what this page follows anyway. */

import type { SeenEvent, Watcher } from "./contract.js";
import { type Session, Sessions } from "./sessions.js";
import { asking } from "./sessions_state.js";
import { soon } from "./soon.js";
import { HOOKS } from "./streams.js";

type Follow = (stream: string, watcher: Watcher) => () => void;

/** What is told here needs no details of a session. */
const LIMITS = { calls: 100, prompts: 1, troubles: 1, marks: 1, tools: 1 } as const;

export class Asking {
  /** The latest to ask first. */
  sessions: readonly Session[] = $state.raw([]);
  private known = new Sessions(LIMITS);
  /** From when on the page has all normal events: what was asked before may have been answered. */
  private from = Number.POSITIVE_INFINITY;
  private readonly refresh = soon(() => this.take());

  constructor(private readonly follow: Follow) {}

  /** Begin, or begin anew; returns what ends it. */
  watch(): () => void {
    this.forget();
    const end = this.follow(HOOKS, {
      events: (events) => this.heard(events),
      lost: ({ kind }) => kind === "reset" && this.forget(),
    });
    return () => {
      end();
      this.forget();
    };
  }

  private forget(): void {
    this.known = new Sessions(LIMITS);
    this.from = Number.POSITIVE_INFINITY;
    this.take();
  }

  private heard(events: readonly SeenEvent[]): void {
    for (const { lane, publishedAt } of events) {
      if (lane === "normal" && publishedAt < this.from) this.from = publishedAt;
    }
    this.known.apply(events);
    this.refresh();
  }

  private take(): void {
    this.sessions = asking(this.known.list(), this.from);
  }
}
