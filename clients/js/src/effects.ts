/** What a `Receiver` asks its shell to do, and what can be asked of it. All frozen values. */

import type { Cursors, From, Lane, StreamEvent } from "./wire.js";

/** What the user of a subscription must learn. */
export type Told =
  /** The offsets `lost` (first, last) are gone; `maybe`: the engine can't know if any event was there. */
  | {
      readonly kind: "trimmed";
      readonly lane: Lane;
      readonly lost: readonly [number, number];
      readonly maybe: boolean;
    }
  /** The log is another one: what was shown of the lane is to be cleared. */
  | { readonly kind: "reset"; readonly lane: Lane }
  /** The event failed in its handler three times. */
  | {
      readonly kind: "passed_over";
      readonly lane: Lane;
      readonly offset: number;
      readonly id: string;
    }
  /** The server refuses the subscription for good. */
  | { readonly kind: "refused"; readonly code: string };

export interface SubscribePayload {
  readonly stream: string;
  readonly cursors: Cursors;
  readonly from: From;
}

export interface AckPayload {
  readonly stream: string;
  readonly lane: Lane;
  readonly epoch: string;
  readonly offset: number;
}

export type Effect =
  | { readonly kind: "subscribe"; readonly payload: SubscribePayload }
  | { readonly kind: "ack"; readonly payload: AckPayload }
  /** `attempt` counts from 1. */
  | {
      readonly kind: "deliver";
      readonly lane: Lane;
      readonly epoch: string;
      readonly event: StreamEvent;
      readonly attempt: number;
    }
  | { readonly kind: "told"; readonly told: Told };

/**
 * What happened so far, over both lanes; in events unless the name says otherwise.
 *
 * Nothing leaves uncounted: what was `received` is `applied`, `passedOver`, dropped for one of four reasons, or
 * still pending. Dropped are duplicates; strays, which fit nowhere (behind a gap, of another epoch, before the
 * answer); what a disconnect, a reset or the end cut off; and what found the inbox full.
 */
export interface Counts {
  received: number;
  applied: number;
  replayed: number;
  duplicatesDropped: number;
  gapsRepaired: number;
  lost: number;
  resets: number;
  passedOver: number;
  straysDropped: number;
  cutDropped: number;
  fullDropped: number;
  /** Answers that nobody had asked for. */
  answersDropped: number;
  acks: number;
}

/** How far a replay is; `total` is null where the server can't tell. */
export interface Progress {
  readonly done: number;
  readonly total: number | null;
}

export function noCounts(): Counts {
  return {
    received: 0,
    applied: 0,
    replayed: 0,
    duplicatesDropped: 0,
    gapsRepaired: 0,
    lost: 0,
    resets: 0,
    passedOver: 0,
    straysDropped: 0,
    cutDropped: 0,
    fullDropped: 0,
    answersDropped: 0,
    acks: 0,
  };
}
