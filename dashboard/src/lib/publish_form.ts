/** What a person typed, as an event; or what is wrong with it, field by field, in words. Pure. */

import type { Lane, NewEvent, Receipt } from "@steadcast/client";
import { count, jsonTokens } from "./format.js";
import { SYSTEM } from "./streams.js";

export interface Draft {
  readonly stream: string;
  readonly type: string;
  readonly source: string;
  readonly subject: string;
  readonly id: string;
  readonly priority: Lane;
  /** JSON. */
  readonly data: string;
}

export type FieldName = keyof Draft;
export type Wrongs = { readonly [name in FieldName]?: string };

const STREAM = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;
const LIMITS = { type: 256, source: 1_024, subject: 1_024, id: 256 } as const;
/** The server takes events of at most 256 KiB. */
const MOST_DATA = 256 * 1_024;

/** What is wrong with a draft; empty where it can be sent. */
export function wrongsOf(draft: Draft): Wrongs {
  const wrongs: { [name in FieldName]?: string } = {};
  const stream = wrongStream(draft.stream.trim());
  if (stream) wrongs.stream = stream;
  if (!draft.type.trim()) wrongs.type = "Every event has a type, such as order.paid.";
  for (const [name, limit] of Object.entries(LIMITS) as [keyof typeof LIMITS, number][]) {
    if (draft[name].trim().length > limit) wrongs[name] = `At most ${count(limit)} characters.`;
  }
  const data = wrongData(draft.data);
  if (data) wrongs.data = data;
  return wrongs;
}

function wrongStream(stream: string): string | null {
  if (!stream) return "Which stream is it for?";
  if (stream.startsWith(SYSTEM)) return "Names that begin with steadcast. are the system's own.";
  if (STREAM.test(stream)) return null;
  return "1 to 128 of A-Z a-z 0-9 . _ : -, the first a letter or digit.";
}

function wrongData(text: string): string | null {
  if (new TextEncoder().encode(text).length > MOST_DATA) return "An event has at most 256 KiB.";
  if (!text.trim()) return null;
  try {
    JSON.parse(text);
    return wrongNumber(text);
  } catch (error) {
    return `Not JSON: ${placed(text, error)}`;
  }
}

/** A whole number, or one without end, that would become another one on its way through JavaScript. */
function wrongNumber(json: string): string | null {
  const changes = (digits: string) =>
    !Number.isFinite(Number(digits)) ||
    (/^-?\d+$/.test(digits) && !Number.isSafeInteger(Number(digits)));
  const number = jsonTokens(json).find(([kind, text]) => kind === "number" && changes(text))?.[1];
  return number === undefined ? null : `A browser can't send ${number} as it is: put it in quotes.`;
}

/** A parser's complaint with its line, where it names a place. */
function placed(text: string, error: unknown): string {
  const words = error instanceof Error ? error.message : String(error);
  const short = words.replace(/^JSON\.parse: /, "").replace(/ in JSON at position \d+.*$/, "");
  const position = /position (\d+)/.exec(words)?.[1];
  if (position === undefined) return short;
  const before = text.slice(0, Number(position)).split("\n");
  return `${short}, in line ${before.length}, column ${(before.at(-1) ?? "").length + 1}.`;
}

/** The event of a draft without wrongs; `minted` is its id where the person gave none. */
export function eventOf(draft: Draft, minted: string): NewEvent {
  const { type, source, subject, id, priority, data } = draft;
  return {
    type: type.trim(),
    priority,
    data: data.trim() ? JSON.parse(data) : null,
    ...(source.trim() && { source: source.trim() }),
    ...(subject.trim() && { subject: subject.trim() }),
    id: id.trim() || minted,
  };
}

export interface Outcome {
  readonly ok: boolean;
  readonly words: string;
  /** What to do about it. */
  readonly hint: string;
}

/** Say where an event is now. */
export function receiptWords(stream: string, receipt: Receipt): Outcome {
  const [epoch, offset] = receipt.position;
  const place = `${stream}, ${receipt.lane} lane, offset ${count(offset)} of epoch ${epoch}`;
  if (receipt.duplicate) {
    return {
      ok: true,
      words: `It was there already: ${place}.`,
      hint: "The same source and id is the same event; nothing was written. Without an id each is a new one.",
    };
  }
  return {
    ok: true,
    words: `Durable: ${place}.`,
    hint: "It is on disk, and on its way to every screen.",
  };
}

const HINTS: { readonly [code: string]: string } = {
  id_conflict: "This id stands for another event. Take another id, or leave it empty.",
  invalid_stream: "Choose another name for the stream.",
  event_too_large: "Publish where the data is instead of the data itself.",
  forbidden: "Your token doesn't cover this stream: it takes one with the scope publish.",
  unauthorized: "Log in again with a token that has the scope publish.",
  rate_limited: "Wait a moment, then send it again.",
  queue_full: "Too much waits already. Send it again in a moment.",
  engine_full: "The server's disk is full: it takes events again once there is room.",
  engine_unavailable: "The server's log is away. steadcast doctor says why.",
  breaker_open: "The server's log failed, and is spared for some seconds. Send it again then.",
  closed: "The page was closed before the answer came.",
};

/** Say why an event was not taken, after what `SocketClient.publish` rejects with. */
export function refusalWords(error: unknown): Outcome {
  const failed = (error ?? {}) as { code?: unknown; message?: unknown; refusal?: unknown };
  // What the server said tells more than that the emission failed.
  const said = (failed.refusal ?? failed) as { code?: unknown; message?: unknown };
  const words = typeof said.message === "string" && said.message ? said.message : NO_ANSWER;
  const code = typeof said.code === "string" ? said.code : "";
  return {
    ok: false,
    words: `Not taken: ${code === "max_retries" ? NO_ANSWER : words}${/[.!?]$/.test(words) ? "" : "."}`,
    hint: HINTS[code] ?? AGAIN,
  };
}

const NO_ANSWER = "the server gave no answer";
const AGAIN = "Send it again: it keeps its id, so it counts once even if it arrived after all.";
