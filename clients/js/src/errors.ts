/** The errors that promises of this package reject with. Each carries fields; `code` is what to switch on. */

import type { Refusal } from "./wire.js";

/** The root of the tree. */
export class SteadcastError extends Error {
  override name = "SteadcastError";
  readonly code: string;
  readonly temporary: boolean;

  constructor(message: string, code: string, temporary = false) {
    super(message);
    this.code = code;
    this.temporary = temporary;
  }
}

/** A pure machine got an input that its state forbids: a defect in the caller. */
export class IllegalInput extends SteadcastError {
  override name = "IllegalInput";

  constructor(message: string) {
    super(message, "illegal_input");
  }
}

/** A call with arguments that can't be: a bad stream name, a second subscription of one stream. */
export class InvalidRequest extends SteadcastError {
  override name = "InvalidRequest";

  constructor(message: string) {
    super(message, "invalid_request");
  }
}

/** An emission that was given up. It is never sent again. */
export class EmissionFailed extends SteadcastError {
  override name = "EmissionFailed";
  /** `queue_full`, `max_retries`, `max_cuts`, `unsendable`, `closed`, or the code of a permanent refusal. */
  readonly reason: string;
  /** What the server said last, if it said anything. */
  readonly refusal: Refusal | undefined;

  /** The client was closed, but the emission stays in the kept queue: the next page will send it. */
  readonly kept: boolean;

  constructor(reason: string, refusal?: Refusal, kept = false) {
    super(`emission failed: ${refusal?.message || reason}`, reason, refusal?.temporary ?? false);
    this.reason = reason;
    this.refusal = refusal;
    this.kept = kept;
  }
}
