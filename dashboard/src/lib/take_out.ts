/** Events as text to take along: JSON, curl, NDJSON, CSV. Pure. */

import type { SeenEvent } from "./contract.js";

/** The event as CloudEvents JSON with its place in the log. */
export function eventJson(event: SeenEvent, indent?: number): string {
  const { stream, lane, epoch, offset, id, source, type, time, subject, data } = event;
  const more = subject === undefined ? {} : { subject };
  return JSON.stringify(
    { stream, lane, epoch, offset, id, source, type, time, ...more, data },
    null,
    indent,
  );
}

/** A shell's word that stands for exactly this text. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * The command that publishes the event again, as another one: with a new id. `token` says that the server asks for
 * one, which the shell reads from STEADCAST_TOKEN: a secret isn't for the clipboard, and the page has none.
 */
export function eventCurl(event: SeenEvent, url: string, token: boolean): string {
  const { source, type, priority, subject, data } = event;
  const body = { source, type, priority, ...(subject === undefined ? {} : { subject }), data };
  const id = `"'"$(date +%s%N)"'"`;
  const text = quoted(JSON.stringify(body)).replace("{", () => `{"specversion":"1.0","id":${id},`);
  return [
    `curl ${url}/v1/streams/${event.stream}/events`,
    ...(token ? [`-H "Authorization: Bearer $STEADCAST_TOKEN"`] : []),
    `-H 'Content-Type: application/cloudevents+json'`,
    `-d ${text}`,
  ].join(" \\\n  ");
}

export function ndjson(events: readonly SeenEvent[]): string {
  return events.map((event) => `${eventJson(event)}\n`).join("");
}

const COLUMNS = [
  "stream",
  "lane",
  "epoch",
  "offset",
  "time",
  "type",
  "source",
  "subject",
  "id",
] as const;

/** The first line of a table (RFC 4180). */
export const CSV_HEAD = `${[...COLUMNS, "data"].join(",")}\r\n`;

/** A table's lines; the data as JSON in the last column. */
export function csv(events: readonly SeenEvent[]): string {
  const lines = events.map((event) => {
    const cells = COLUMNS.map((name) => String(event[name] ?? ""));
    return [...cells, JSON.stringify(event.data) ?? ""].map(cell).join(",");
  });
  return lines.map((line) => `${line}\r\n`).join("");
}

/** A spreadsheet runs what begins like a formula: such a cell gets an apostrophe before it. */
function cell(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
