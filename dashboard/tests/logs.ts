/** A log of both lanes, as the server gives it. */

import type { Answer, SeenEvent } from "../src/lib/contract.js";
import { LogReader, type Offsets } from "../src/lib/log.js";
import { one } from "./events.js";

const AWAY: Answer = {
  ok: false,
  status: 0,
  code: "",
  detail: "away",
  temporary: true,
  problem: null,
};

/** A log that answers as the server does. */
export class Log {
  trimmed = { critical: 0, normal: 0 };
  asked = 0;
  away = false;
  readonly lanes: { critical: SeenEvent[]; normal: SeenEvent[] } = { critical: [], normal: [] };

  readonly ask = async (path: string): Promise<Answer> => {
    this.asked += 1;
    if (this.away) return AWAY;
    const query = new URLSearchParams(path.slice(path.indexOf("?")));
    const lane = query.get("lane") as "critical" | "normal";
    const after = Number(query.get("after")?.split(":")[1]);
    const gone = this.trimmed[lane];
    if (after < gone) return lost([after + 1, gone]);
    const all = this.lanes[lane];
    const events = all.filter(({ offset }) => offset > after).slice(0, Number(query.get("limit")));
    const head = all.at(-1)?.offset ?? 0;
    const body = { events, upto: events.at(-1)?.offset ?? Math.max(after, head), head };
    return { ok: true, status: 200, body };
  };

  get heads(): Offsets {
    const head = (lane: "critical" | "normal") => this.lanes[lane].at(-1)?.offset ?? 0;
    return { critical: head("critical"), normal: head("normal") };
  }
}

function lost(range: readonly [number, number]): Answer {
  const problem = { code: "trimmed", lost: range };
  return { ok: false, status: 410, code: "trimmed", detail: "gone", temporary: false, problem };
}

/** A log of both lanes, its offsets with holes; events are numbered by their second. */
export function logOf(count: number, below: (n: number) => number): Log {
  const log = new Log();
  const heads = { critical: 0, normal: 0 };
  for (let second = 0; second < count; second += 1) {
    const lane = below(5) === 0 ? "critical" : "normal";
    heads[lane] += 1 + (below(10) === 0 ? below(400) : 0);
    log.lanes[lane].push(one(heads[lane], second, { id: String(second) }, lane));
  }
  return log;
}

export const reader = (log: Log, signal = new AbortController().signal) =>
  new LogReader(log.ask, "s", "e1", signal);

export const seconds = (events: readonly SeenEvent[]) => events.map(({ id }) => Number(id));
