/**
 * What somebody writes in the form for an event, and what became of it. It outlives the view: a look at the feed, or
 * the login where a token has ended, must cost neither the text nor the answer.
 */

import type { Page } from "./contract.js";
import {
  type Draft,
  eventOf,
  type FieldName,
  type Outcome,
  receiptWords,
  refusalWords,
  wrongsOf,
} from "./publish_form.js";

const EMPTY = {
  type: "",
  source: "",
  subject: "",
  id: "",
  priority: "normal",
  data: '{\n  "text": "hello"\n}',
} as const;

export class PublishStore {
  draft: Draft = $state.raw({ stream: "", ...EMPTY });
  /** Fields that the person has left once; a wrong is told only then. */
  left: ReadonlySet<FieldName> = $state.raw(new Set());
  outcome: (Outcome & { readonly stream: string }) | null = $state.raw(null);
  sending = $state(false);
  private touched = false;
  /** Stays until the event is taken, so that sending it again counts once. */
  private minted = mint();

  constructor(private readonly client: Pick<Page["client"], "publish">) {}

  /** What can't be sent. Not derived once: that would end with the view in which this was made. */
  get wrongs(): ReturnType<typeof wrongsOf> {
    return wrongsOf(this.draft);
  }

  /** The form is shown: it begins with the stream that the page shows. */
  open(stream: string | null): void {
    if (!this.touched) this.draft = { ...this.draft, stream: stream ?? "orders" };
  }

  change(name: FieldName, value: string): void {
    this.touched = true;
    this.draft = { ...this.draft, [name]: value };
    this.outcome = null;
    this.minted = mint();
  }

  leave(name: FieldName): void {
    this.left = new Set([...this.left, name]);
  }

  /** Send what is written; gives the field that is wrong instead, if one is. */
  async send(): Promise<FieldName | null> {
    const { draft } = this;
    this.left = new Set(Object.keys(draft) as FieldName[]);
    const [wrong] = Object.keys(this.wrongs) as FieldName[];
    if (wrong) return wrong;
    const stream = draft.stream.trim();
    this.touched = this.sending = true;
    this.outcome = null;
    try {
      const [receipt] = await this.client.publish(stream, eventOf(draft, this.minted));
      if (receipt) this.outcome = { ...receiptWords(stream, receipt), stream };
      this.minted = mint();
    } catch (error) {
      this.outcome = { ...refusalWords(error), stream };
    } finally {
      this.sending = false;
    }
    return null;
  }
}

function mint(): string {
  // Without https there is no crypto.randomUUID.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
