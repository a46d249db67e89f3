/** What the feed's reader sees and does: follow, hold, read back and forth in the log, go to a time. */

import type { Loss } from "../../lib/contract.js";
import { Display } from "../../lib/display.js";
import { type Matcher, matching } from "../../lib/filter.js";
import type { Following } from "../../lib/following.js";
import { type Found, LogReader, type Offsets, Unread } from "../../lib/log.js";
import type { FeedPage } from "../../lib/page.svelte.js";
import { foldCalls, type Row } from "../../lib/row.js";
import { type Step, walk } from "../../lib/walk.js";

/** Matching events that one look into the log wants to find, and pages that it reads for them at most. */
const WANTED = 80;
const STEPS = 12;
/** Rows of the list while it follows: more than any screen shows. */
const FOLLOWED = 200;

export class Reading {
  /** All that matches, tool calls folded. */
  all: readonly Row[] = $state.raw([]);
  /**
   * What stands in the list. While it follows, these are the last rows alone: a list that keeps its
   * length keeps its scroll position too, and is drawn without a frame in which its rows are missing.
   */
  readonly rows: readonly Row[] = $derived.by(() =>
    this.following ? this.all.slice(-FOLLOWED) : this.all,
  );
  /** Rows that the page keeps of this stream, before the filter. */
  kept = $state(0);
  /** The newest row is kept in view. */
  following = $state(true);
  /** Events that came since the reader left the newest. */
  unseen = $state(0);
  /** The log is being read. */
  busy = $state(false);
  /** Nothing older is kept. */
  ended = $state(false);
  /** The page has all that the log ever took. */
  complete = $state(false);
  /** Why the log can't be read. */
  trouble: string | null = $state(null);
  /** How far back the log was searched without finding enough; milliseconds of Unix time. */
  searched: number | null = $state(null);
  /** The rows changed at their beginning last. */
  shifted = $state(false);
  /** Times that the rows became those of another place, which is to be seen from its beginning. */
  jumps = $state(0);
  private display: Display;
  private matches: Matcher | null = null;
  private left = 0;
  /** The rows that were taken on last. */
  private standing: readonly Row[] | null = null;
  private reader: LogReader | null = null;
  private abort = new AbortController();

  constructor(
    private readonly page: FeedPage,
    private readonly chosen: Following,
  ) {
    this.display = new Display(chosen.tail, () => this.applied());
  }

  /** Whether the rows reach the newest event. */
  get atNewest(): boolean {
    return this.display.attached;
  }

  /** Leave the stream as it was found. */
  close(): void {
    this.abort.abort();
    this.display.follow();
  }

  /** Take the tail's rows on; call it whenever something came. */
  refresh(): void {
    const rows = this.display.rows();
    this.kept = rows.length;
    if (!this.following) this.unseen = this.chosen.tail.applied - this.left;
    // A stretch of the log stands still; it is folded when it changes.
    if (this.display.attached || rows !== this.standing) this.show(rows);
  }

  filter(matches: Matcher | null): void {
    this.matches = matches;
    this.follow();
  }

  /** Show the newest, and go on with it. */
  follow(): void {
    this.stop();
    this.display.follow();
    this.following = true;
    this.ended = false;
    this.searched = this.trouble = null;
    this.unseen = 0;
    this.show(this.display.rows());
  }

  /** Stay where the reader is; what comes is put below, out of sight. */
  hold(): void {
    if (!this.following) return;
    this.following = false;
    this.shifted = true;
    this.left = this.chosen.tail.applied;
    this.display.hold();
  }

  /** A log that was replaced can't be read on. */
  lost(loss: Loss): void {
    if (loss.kind === "reset") this.follow();
  }

  /** Read older events; the rows get longer at their beginning. */
  async older(): Promise<void> {
    if (this.busy || this.ended || this.complete) return;
    this.hold();
    await this.step(async (log) => {
      let hits = 0;
      for (let step = 0; step < STEPS && hits < WANTED && !this.ended; step += 1) {
        const found = await log.older(this.display.before);
        this.display.prepend(found, this.matches);
        hits += this.hits(found);
        this.ended = found.ended;
        this.searched = found.events[0]?.publishedAt ?? this.searched;
      }
      if (hits >= WANTED) this.searched = null;
      this.show(this.display.rows(), true);
      await frame();
      if (this.display.dropNewest()) this.show(this.display.rows());
    });
  }

  /** Read on towards the newest, where the rows don't reach it. */
  async newer(): Promise<void> {
    if (this.busy || this.display.attached) return;
    await this.step(async (log) => {
      await this.forward(log);
      this.show(this.display.rows());
      await frame();
      if (this.display.dropOldest()) {
        this.ended = false;
        this.show(this.display.rows(), true);
      }
    });
  }

  /** Show the log from a time on, in milliseconds of Unix time. */
  async jump(time: number): Promise<void> {
    this.hold();
    this.stop();
    await this.step(async (log) => {
      const at = await log.find(time, this.applied());
      this.display.stand(at);
      this.ended = false;
      this.searched = null;
      await this.forward(log);
      this.show(this.display.rows());
      this.jumps += 1;
    });
  }

  /** Walk through the whole log, up to what this page has applied; raises `Unread`. */
  everything(signal: AbortSignal): AsyncIterable<Step> {
    return walk(this.newLog(signal), this.applied(), this.matches);
  }

  /** End what is being read: something else is wanted. */
  private stop(): void {
    this.abort.abort();
    this.abort = new AbortController();
    this.reader = null;
    this.busy = false;
  }

  private async forward(log: LogReader): Promise<void> {
    let hits = 0;
    for (let step = 0; step < STEPS && hits < WANTED && !this.display.attached; step += 1) {
      const found = await log.newer(this.display.behind, this.applied());
      this.display.append(found, this.matches);
      hits += this.hits(found);
    }
  }

  private hits({ events }: Found): number {
    const { matches } = this;
    return matches ? events.filter((event) => matches(event)).length : events.length;
  }

  private async step(work: (log: LogReader) => Promise<void>): Promise<void> {
    const { signal } = this.abort;
    this.busy = true;
    this.trouble = null;
    try {
      await work(this.log(signal));
    } catch (error) {
      if (!(error instanceof Unread)) throw error;
      if (!signal.aborted) this.trouble = error.message;
    } finally {
      if (!signal.aborted) this.busy = false;
    }
  }

  private log(signal: AbortSignal): LogReader {
    this.reader ??= this.newLog(signal);
    return this.reader;
  }

  private newLog(signal: AbortSignal): LogReader {
    const { server } = this.page;
    const [epoch = ""] = this.chosen.subscription.snapshot().cursors.normal ?? [];
    const { stream } = this.chosen;
    return new LogReader((path, options) => server.ask(path, options), stream, epoch, signal);
  }

  private applied(): Offsets {
    const { cursors } = this.chosen.subscription.snapshot();
    return { critical: cursors.critical?.[1] ?? 0, normal: cursors.normal?.[1] ?? 0 };
  }

  private show(rows: readonly Row[], shifted = false): void {
    this.standing = rows;
    this.shifted = shifted;
    this.kept = rows.length;
    const { critical, normal } = this.display.before;
    this.complete = rows.length > 0 && critical <= 0 && normal <= 0;
    const whole = this.matches ? rows : this.display.whole();
    this.all = matching(foldCalls(whole), this.matches);
  }
}

function frame(): Promise<unknown> {
  return new Promise((resolve) => setTimeout(resolve, 30));
}
