/** An event with what this page knows of it. Pure. */

import type { Lane, Place, StreamEvent } from "@steadcast/client";
import type { SeenEvent } from "./contract.js";

type Fields = { readonly [name: string]: unknown };

/** The value as an object with fields, or null. */
export function fieldsOf(value: unknown): Fields | null {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Fields)
    : null;
}

/** A field that is a text with something in it, or null. */
export function textOf(fields: Fields | null, name: string): string | null {
  const value = fields?.[name];
  return typeof value === "string" && value !== "" ? value : null;
}

/** What a hook tells: its data, or what Claude MPM's box around it holds. */
export function hookOf(data: unknown): Fields | null {
  const outer = fieldsOf(data);
  const boxed = outer?.hook_event_name === undefined && textOf(outer, "subtype") !== null;
  return (boxed ? fieldsOf(outer?.data) : null) ?? outer;
}

/** What a tool was called with, by a hook's fields. */
export function inputOf(hook: Fields | null): Fields | null {
  return fieldsOf(hook?.tool_input ?? hook?.tool_parameters);
}

/** An event of a batch, or of a page of the log: that tells when the log took it (RFC 3339). */
export interface LogEvent extends StreamEvent {
  readonly kept?: string;
}

/** A class, so that what is asked of few events is found when it is asked. */
class Seen implements SeenEvent {
  shownAt = 0;
  readonly offset: number;
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly time: string;
  readonly priority: Lane;
  declare readonly subject?: string;
  readonly data: unknown;
  readonly stream: string;
  readonly lane: Lane;
  readonly epoch: string;
  private readonly kept: string | undefined;

  constructor(
    event: LogEvent,
    place: Place,
    readonly arrivedAt: number,
  ) {
    this.offset = event.offset;
    this.id = event.id;
    this.source = event.source;
    this.type = event.type;
    this.time = event.time;
    this.priority = event.priority;
    if (typeof event.subject === "string") this.subject = event.subject;
    this.data = event.data;
    this.stream = place.stream;
    this.lane = place.lane;
    this.epoch = place.epoch;
    this.kept = event.kept;
  }

  get keptAt(): number | undefined {
    return this.kept === undefined ? undefined : Date.parse(this.kept);
  }

  get publishedAt(): number {
    return Date.parse(this.time);
  }

  get session(): string | null {
    return textOf(fieldsOf(this.data), "session_id");
  }

  get agent(): string | null {
    return textOf(fieldsOf(this.data), "agent_id");
  }
}

/** Take an event in; `arrivedAt` is Unix time in milliseconds. */
export function seen(event: LogEvent, place: Place, arrivedAt: number): SeenEvent {
  return new Seen(event, place, arrivedAt);
}

/** What an event weighs in memory, about: the characters of its data, and as many for each value's frame. */
export function weightOf(data: unknown): number {
  if (typeof data === "string") return 16 + data.length;
  if (typeof data !== "object" || data === null) return 16;
  let weight = 32;
  for (const [name, value] of Object.entries(data)) weight += name.length + weightOf(value);
  return weight;
}
