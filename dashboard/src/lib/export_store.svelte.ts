/**
 * The whole log on its way into a file. It outlives the view that it was begun in: who looks at another meanwhile
 * still gets the file, or hears on the way back why there is none.
 */

import type { SeenEvent } from "./contract.js";
import { download } from "./download.js";
import { Unread } from "./log.js";
import { CSV_HEAD, csv, ndjson } from "./take_out.js";
import { gather, type Step, type Taken } from "./walk.js";

export const KINDS = {
  ndjson: { name: "NDJSON", type: "application/x-ndjson", head: "", text: ndjson },
  csv: { name: "CSV", type: "text/csv", head: CSV_HEAD, text: csv },
} as const;
export type Kind = keyof typeof KINDS;

/** Of what the file is. */
export interface Wanted {
  readonly stream: string;
  readonly filtered: boolean;
}

export class ExportStore {
  wanted: Wanted | null = $state.raw(null);
  /** How far it is. */
  taken: Taken | null = $state.raw(null);
  trouble = $state("");
  private asked: AbortController | null = $state.raw(null);

  get working(): boolean {
    return this.asked !== null;
  }

  /** Hand events that are here over at once. */
  hand(kind: Kind, stream: string, events: readonly SeenEvent[]): void {
    const { head, text } = KINDS[kind];
    give(kind, stream, [head, text(events)]);
  }

  /** Read all and hand it over; ends what was begun before. */
  async takeAll(
    kind: Kind,
    wanted: Wanted,
    read: (signal: AbortSignal) => AsyncIterable<Step>,
  ): Promise<void> {
    this.stop();
    const asked = new AbortController();
    this.asked = asked;
    this.wanted = wanted;
    const { head, text } = KINDS[kind];
    try {
      const file = await gather(read(asked.signal), head, text, (now) => {
        if (this.asked === asked) this.taken = now;
      });
      if (!asked.signal.aborted) give(kind, wanted.stream, [file]);
    } catch (error) {
      if (!(error instanceof Unread)) throw error;
      if (!asked.signal.aborted) this.trouble = error.message;
    } finally {
      if (this.asked === asked) this.asked = null;
    }
  }

  stop(): void {
    this.asked?.abort();
    this.asked = this.taken = this.wanted = null;
    this.trouble = "";
  }
}

function give(kind: Kind, stream: string, parts: readonly BlobPart[]): void {
  download(`${stream}.${kind}`, new Blob([...parts], { type: KINDS[kind].type }));
}
