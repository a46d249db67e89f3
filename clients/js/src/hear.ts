/** What a server says, read and handed to the one who hears it. */

import {
  type Batch,
  type Goaway,
  type Ping,
  parseBatch,
  parseGoaway,
  parsePing,
  parseRefusal,
  parseWelcome,
  type Refusal,
  type Welcome,
} from "./wire.js";

export interface Hearer {
  welcome(welcome: Welcome): void;
  batch(batch: Batch): void;
  ping(ping: Ping): void;
  goaway(goaway: Goaway): void;
  error(refusal: Refusal): void;
}

function tell<T>(value: T | undefined, hear: (value: T) => void): boolean {
  if (value === undefined) return false;
  hear(value);
  return true;
}

/** Hand a message over; false if it is one of the protocol's and isn't of its form. */
export function hear(event: string, payload: unknown, hearer: Hearer): boolean {
  switch (event) {
    case "welcome":
      return tell(parseWelcome(payload), (welcome) => hearer.welcome(welcome));
    case "batch":
      return tell(parseBatch(payload), (batch) => hearer.batch(batch));
    case "ping":
      return tell(parsePing(payload), (ping) => hearer.ping(ping));
    case "goaway":
      return tell(parseGoaway(payload), (goaway) => hearer.goaway(goaway));
    case "error":
      return tell(parseRefusal(payload), (refusal) => hearer.error(refusal));
    default:
      return true;
  }
}
