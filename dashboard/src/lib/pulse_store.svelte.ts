/** The pulse of the stream that is shown: first from the log, then as events come. */

import type { Lane } from "@steadcast/client";
import type { Page, SeenEvent } from "./contract.js";
import { type History, readLast } from "./log_tail.js";
import { Pulse } from "./pulse.js";
import { soon } from "./soon.js";

/** So many events of each lane are read for the first picture. */
export const LAST: { readonly [lane in Lane]: number } = { normal: 2_048, critical: 256 };

export class PulseStore {
  /** Grows whenever there is something new to draw. */
  version = $state(0);
  loading = $state(true);
  /** Before this the log has events that weren't read, in milliseconds of Unix time; null where it hasn't. */
  since: number | null = $state(null);
  /** Why the log can't be read, in words: only what this page has is counted then. */
  trouble: string | null = $state(null);
  pulse = new Pulse();
  private known: { [lane in Lane]: History["at"] } = { normal: null, critical: null };
  private waiting: SeenEvent[] | null = [];
  private readonly refresh = soon(() => {
    this.version += 1;
  });

  constructor(
    private readonly page: Page,
    readonly stream: string,
  ) {}

  /** Begin; returns what ends it. */
  open(): () => void {
    const reading = new AbortController();
    void this.read(reading.signal);
    const leave = this.page.follow(this.stream, { events: (events) => this.heard(events) });
    return () => {
      reading.abort();
      leave();
    };
  }

  private async read(signal: AbortSignal): Promise<void> {
    const { server } = this.page;
    const read = (lane: Lane) => readLast(server, this.stream, lane, LAST[lane], signal);
    const [normal, critical] = await Promise.all([read("normal"), read("critical")]);
    if (signal.aborted) return;
    this.count(normal.events);
    this.count(critical.events);
    this.known = { normal: normal.at, critical: critical.at };
    const came = this.waiting ?? [];
    this.waiting = null;
    this.heard(came);
    this.trouble = normal.trouble ?? critical.trouble;
    this.since = wholeFrom([normal, critical]);
    this.loading = false;
    this.version += 1;
  }

  private heard(events: readonly SeenEvent[]): void {
    if (this.waiting === null) this.count(events.filter((event) => this.isNew(event)));
    // What is left out here stands in the pages that are being read, or in the next ones.
    else if (this.waiting.length < 20_000) this.waiting.push(...events);
    this.refresh();
  }

  private isNew({ lane, epoch, offset }: SeenEvent): boolean {
    const at = this.known[lane];
    return at === null || epoch !== at.epoch || offset > at.upto;
  }

  private count(events: readonly SeenEvent[]): void {
    const now = Date.now();
    for (const { type, publishedAt, arrivedAt } of events) {
      // A publisher's clock may be a little ahead of this one.
      const time = Number.isNaN(publishedAt) ? arrivedAt : publishedAt;
      this.pulse.add(type, time > now && time < now + 60_000 ? now : time, now);
    }
  }
}

/** From when on the events of all lanes are known; null where the log has none that weren't read. */
function wholeFrom(lanes: readonly History[]): number | null {
  const begins = lanes.flatMap(({ more, events }) => (more ? (events[0]?.publishedAt ?? []) : []));
  const known = begins.filter((begin) => !Number.isNaN(begin));
  return known.length > 0 ? Math.max(...known) : null;
}
