/** The story of the last cuts: when, how long, and what was done so that nothing is missing. Pure. */

/** What a look at the connection found. Times are milliseconds of Unix time. */
export interface Look {
  readonly at: number;
  readonly state: "live" | "replaying" | "stale" | "draining" | "offline" | "other";
  readonly replayed: number;
  readonly duplicates: number;
  readonly gaps: number;
  readonly lost: number;
}

export interface Cut {
  /** When the connection ended. */
  readonly began: number;
  /** When it was there again, and when all that was missed had been read; null until then. */
  readonly back: number | null;
  readonly caughtUp: number | null;
  /** How it looked first. */
  readonly cause: "stale" | "draining" | "offline";
  /** What was counted from the cut until it was caught up with. */
  readonly replayed: number;
  readonly duplicates: number;
  readonly gaps: number;
  readonly lost: number;
}

/** Cuts that are remembered; older ones go. */
const MOST = 20;

export class Story {
  /** The newest first. */
  cuts: readonly Cut[] = [];
  private before: Look | null = null;
  private wasLive = false;

  look(look: Look): void {
    const [last] = this.cuts;
    const open = last && last.caughtUp === null ? last : null;
    const { state } = look;
    const away = state === "offline" || state === "stale" || state === "draining";
    if (open) this.replace(this.told(open, look));
    else if (away && this.wasLive) this.begin(look, state);
    if (state === "live") this.wasLive = true;
    else if (away) this.wasLive = false;
  }

  private begin(look: Look, cause: Cut["cause"]): void {
    this.before = look;
    const counts = { replayed: 0, duplicates: 0, gaps: 0, lost: 0 };
    const cut: Cut = { began: look.at, back: null, caughtUp: null, cause, ...counts };
    this.cuts = [cut, ...this.cuts].slice(0, MOST);
  }

  private told(cut: Cut, look: Look): Cut {
    const before = this.before ?? look;
    const there = look.state === "replaying" || look.state === "live";
    return {
      ...cut,
      back: there ? (cut.back ?? look.at) : null,
      caughtUp: look.state === "live" ? look.at : null,
      replayed: look.replayed - before.replayed,
      duplicates: look.duplicates - before.duplicates,
      gaps: look.gaps - before.gaps,
      lost: look.lost - before.lost,
    };
  }

  private replace(cut: Cut): void {
    this.cuts = [cut, ...this.cuts.slice(1)];
  }
}
