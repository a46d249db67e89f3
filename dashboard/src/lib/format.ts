/** Values in words, and the colour that belongs to a name. Pure. */

const COUNT = new Intl.NumberFormat("en");

/** 1240 as "1,240". */
export function count(value: number): string {
  return COUNT.format(value);
}

/** "1 event", "2 events". */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** The time of day of an RFC 3339 time, here: "14:03:22.120"; what is no time stays as it is. */
export function clock(time: string | number, fraction = true): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  const parts = [date.getHours(), date.getMinutes(), date.getSeconds()];
  const text = parts.map((part) => String(part).padStart(2, "0")).join(":");
  return fraction ? `${text}.${String(date.getMilliseconds()).padStart(3, "0")}` : text;
}

/** The time of day, with the day before it where that isn't the day of `now`: "11-21 14:03:22". */
export function moment(time: string | number, now: number): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime()) || date.toDateString() === new Date(now).toDateString()) {
    return clock(time);
  }
  const parts = [date.getMonth() + 1, date.getDate()];
  const day = parts.map((part) => String(part).padStart(2, "0")).join("-");
  return `${day} ${clock(time, false)}`;
}

/** `moment` in whole seconds: for whatever may be older than today, as in a page that stays open for days. */
export function when(time: string | number, now: number): string {
  return moment(time, now).replace(/\.\d+$/, "");
}

/** Seconds as "12 s", "3 min 5 s", "2 h 10 min". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Milliseconds as "250 ms", "4.2 s", "2 min 5 s". */
export function milliseconds(value: number): string {
  if (value < 1_000) return `${Math.round(value)} ms`;
  return value < 60_000 ? `${(value / 1_000).toFixed(1)} s` : duration(value / 1_000);
}

/** An event's type as its leading names and its last: "claude." and "Stop". */
export function typeName(type: string): readonly [space: string, name: string] {
  const dot = type.lastIndexOf(".", type.length - 2) + 1;
  return [type.slice(0, dot), type.slice(dot)];
}

/** "12" or "12–40". */
export function range([first, last]: readonly [number, number]): string {
  return first === last ? count(first) : `${count(first)}–${count(last)}`;
}

/** A hue from 0 to 359 that a name always has (FNV-1a, with its bits mixed once more). */
export function hue(name: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < name.length; index += 1) {
    hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193);
  }
  hash ^= hash >>> 15;
  return (Math.imul(hash, 0x2c1b3c6d) >>> 0) % 360;
}

export type TokenKind = "key" | "text" | "number" | "word" | "plain";
export type Token = readonly [kind: TokenKind, text: string];

const TOKEN =
  /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g;

/** Formatted JSON cut into pieces to colour. */
export function jsonTokens(json: string): Token[] {
  const tokens: Token[] = [];
  let end = 0;
  for (const match of json.matchAll(TOKEN)) {
    const [whole, text, colon, digits] = match;
    if (match.index > end) tokens.push(["plain", json.slice(end, match.index)]);
    end = match.index + whole.length;
    if (text === undefined) tokens.push([digits === undefined ? "word" : "number", whole]);
    else if (colon === undefined) tokens.push(["text", text]);
    else tokens.push(["key", text], ["plain", colon]);
  }
  if (end < json.length) tokens.push(["plain", json.slice(end)]);
  return tokens;
}

/**
 * Whether a number may be another one than the log's: a browser keeps no whole one above 2^53 exactly, and makes
 * Infinity of one of more than 308 digits.
 */
export function isRounded(value: unknown): boolean {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return false;
  return Number.isInteger(value) || !Number.isFinite(value);
}

/** Whether such a number stands anywhere in a value. */
export function holdsRounded(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return isRounded(value);
  return Object.values(value).some(holdsRounded);
}
