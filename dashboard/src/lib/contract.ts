/** What every view of the page is given, and what the parts of the page agree on. Types alone. */

import type {
  ClientSnapshot,
  ConnectionMetrics,
  Lane,
  SocketClient,
  StreamEvent,
  SubscriptionSnapshot,
} from "@steadcast/client";
import type { Address } from "./address.js";
import type { Pill } from "./pill.js";
import type { Stream } from "./streams.js";

export type ViewName = "feed" | "sessions" | "pulse" | "delivery" | "publish";

/** An event as this page knows it. Times are milliseconds of Unix time. */
export interface SeenEvent extends StreamEvent {
  readonly stream: string;
  readonly lane: Lane;
  readonly epoch: string;
  /** The event's own `time`; NaN where it is none. */
  readonly publishedAt: number;
  /** When the log took it, where the server tells. */
  readonly keptAt: number | undefined;
  /** When its batch came to this page; for what was paged in from the log, when the page came. */
  readonly arrivedAt: number;
  /** The frame that first had it; 0 until then. */
  shownAt: number;
  /** The coding session and the agent in it that its data names. */
  readonly session: string | null;
  readonly agent: string | null;
}

/** Events that could not be shown. */
export type Loss =
  /** Retention took the offsets before this page could read them; `maybe`: nobody knows if they held any. */
  | {
      readonly kind: "trimmed";
      readonly lane: Lane;
      readonly lost: readonly [number, number];
      readonly maybe: boolean;
    }
  /** The log is another one; what was shown of the lane, up to `upto`, was cleared. */
  | { readonly kind: "reset"; readonly lane: Lane; readonly upto: number | null }
  /** The page itself failed on the event. */
  | {
      readonly kind: "passed_over";
      readonly lane: Lane;
      readonly offset: number;
      readonly id: string;
    };

/** What the feed lets through; every part that isn't empty must fit. */
export interface Filter {
  /** Words, each of which stands somewhere in the event. */
  readonly text: string;
  readonly type: string;
  readonly source: string;
  readonly session: string;
  readonly agent: string;
  readonly priority: Lane | "";
}

/** Where the page is, as its address says; what a view changes here survives a reload and the back button. */
export interface Navigation {
  readonly view: ViewName;
  /** The stream that the address names; null leaves the choice to the page (`Live.stream`). */
  readonly stream: string | null;
  readonly filter: Filter;
  /** A parameter of a view's own. */
  param(name: string): string | null;
  /** The address that a change leads to, for `href`. */
  href(change: Change): string;
  /** Go there; "replace" adds no step to the history. */
  go(change: Change, how?: "push" | "replace"): void;
}

export interface Change {
  readonly view?: ViewName;
  readonly stream?: string | null;
  readonly filter?: Partial<Filter>;
  /** Parameters of a view's own; null takes one away. A change of view drops those that it doesn't name. */
  readonly params?: { readonly [name: string]: string | null };
}

/** The chosen stream and the connection, reactive; taken at most once a frame. */
export interface LiveState {
  readonly stream: string | null;
  /** The last events of the stream, oldest first, at most some thousands; a new array whenever it changed. */
  readonly recent: readonly SeenEvent[];
  /** Events that were applied since the stream was chosen. */
  readonly applied: number;
  readonly client: ClientSnapshot;
  readonly metrics: ConnectionMetrics;
  readonly subscription: SubscriptionSnapshot | null;
  /** The state of delivery in a word. */
  readonly pill: Pill;
  /** When all this was so, in milliseconds of Unix time. */
  readonly at: number;
}

/** What wants to hear of a stream's events, each once and in order. */
export interface Watcher {
  /** Consecutive events of one lane; `replaying`: they are older than what comes live. */
  readonly events: (events: readonly SeenEvent[], replaying: boolean) => void;
  readonly lost?: (loss: Loss) => void;
}

/** What the server answered. */
export type Answer =
  | { readonly ok: true; readonly status: number; readonly body: unknown }
  /** `status` 0: nobody answered. `problem` is the whole body (RFC 9457) where there is one. */
  | {
      readonly ok: false;
      readonly status: number;
      readonly code: string;
      /** In words, for the reader. */
      readonly detail: string;
      readonly temporary: boolean;
      readonly problem: unknown;
    };

export interface ServerAccess {
  /** Null before the first answer. */
  readonly streams: readonly Stream[] | null;
  /** The server asks for a token; the shell shows the login. */
  readonly locked: boolean;
  /**
   * Ask the server; `path` is relative to its base ("v1/stats"). Never rejects. A 401 shows the login.
   * `body` is sent as JSON; the method is then POST unless it is given.
   */
  ask(path: string, options?: Ask): Promise<Answer>;
}

export interface Ask {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: { readonly [name: string]: string };
  readonly signal?: AbortSignal;
  /** "omit" asks as one who shows nothing. */
  readonly credentials?: RequestCredentials;
}

/** What a view gets, as its property `page`. */
export interface Page {
  readonly address: Address;
  /** The page's connection: `publish`, `getConnectionMetrics`, … Follow streams by `follow` instead. */
  readonly client: SocketClient;
  readonly nav: Navigation;
  readonly live: LiveState;
  readonly server: ServerAccess;
  /**
   * Hear of a stream's events: first at once those that the page still has, then what comes. Any number
   * of watchers share one subscription. Returns what ends it.
   */
  follow(stream: string, watcher: Watcher): () => void;
}
