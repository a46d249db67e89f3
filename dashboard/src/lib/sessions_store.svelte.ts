/** The sessions that this page knows of: first from the log, then as their events come. */

import type { Lane } from "@steadcast/client";
import type { Loss, Page, SeenEvent } from "./contract.js";
import { type History, readLast } from "./log_tail.js";
import { Sessions } from "./sessions.js";
import type { Session } from "./sessions_model.js";
import { soon } from "./soon.js";
import { HOOKS } from "./streams.js";

/** So many events of each lane are read from the log. */
const LAST: { readonly [lane in Lane]: number } = { normal: 4_096, critical: 512 };
/** So many events may come while the log is being read; with more it is read again. */
const MEANWHILE = 20_000;

export class SessionStore {
  list: readonly Session[] = $state.raw([]);
  /** Grows with every change: sessions are changed in place. */
  version = $state(0);
  loading = $state(true);
  trouble: string | null = $state(null);
  /** The log has older events than those that were read. */
  more = $state(false);
  evicted = $state(0);
  private sessions = new Sessions();
  /** What comes while the log is being read. */
  private waiting: SeenEvent[] | null = [];
  /** Up to where the log was read: the subscription begins before that. */
  private readTo: { readonly [lane in Lane]: History["at"] } = { normal: null, critical: null };
  private reading: AbortController | undefined;
  private readonly refresh = soon(() => this.take());

  constructor(private readonly page: Page) {}

  /** Begin; returns what ends it. */
  open(): () => void {
    void this.read();
    const leave = this.page.follow(HOOKS, {
      events: (events, replaying) => this.heard(events, !replaying),
      lost: (loss) => this.lost(loss),
    });
    return () => {
      leave();
      this.reading?.abort();
    };
  }

  get(id: string | null): Session | null {
    // Whoever asks wants to know of the session when it comes.
    void this.version;
    return id === null ? null : (this.sessions.get(id) ?? null);
  }

  /** Read the log anew. */
  async read(): Promise<void> {
    this.reading?.abort();
    const reading = new AbortController();
    this.reading = reading;
    this.loading = true;
    this.waiting ??= [];
    const { server } = this.page;
    const read = (lane: Lane) => readLast(server, HOOKS, lane, LAST[lane], reading.signal);
    const [normal, critical] = await Promise.all([read("normal"), read("critical")]);
    if (reading.signal.aborted) return;
    this.begin({ normal, critical });
  }

  private begin(histories: { readonly [lane in Lane]: History }): void {
    const { normal, critical } = histories;
    const sessions = new Sessions();
    sessions.apply(critical.events);
    sessions.apply(normal.events);
    const came = this.waiting ?? [];
    this.waiting = null;
    this.readTo = { normal: normal.at, critical: critical.at };
    sessions.apply(this.fresh(came));
    this.sessions = sessions;
    this.loading = false;
    this.trouble = normal.trouble ?? critical.trouble;
    this.more = normal.more || critical.more;
    this.take();
  }

  private heard(events: readonly SeenEvent[], live: boolean): void {
    if (this.waiting === null) this.sessions.apply(this.fresh(events), live);
    else if (this.waiting.length + events.length <= MEANWHILE) this.waiting.push(...events);
    else {
      this.waiting = [];
      void this.read();
    }
    this.refresh();
  }

  /** Leave out what was read from the log already. */
  private fresh(events: readonly SeenEvent[]): SeenEvent[] {
    return events.filter(({ lane, epoch, offset }) => {
      const at = this.readTo[lane];
      return at === null || epoch !== at.epoch || offset > at.upto;
    });
  }

  private lost(loss: Loss): void {
    // Another log: what was known of the old one is over.
    if (loss.kind === "reset") void this.read();
  }

  private take(): void {
    if (this.waiting !== null && this.loading) return;
    this.list = this.sessions.list();
    this.evicted = this.sessions.evicted;
    this.version += 1;
  }
}
