/** What the server tells of itself, asked for again and again while somebody looks. */

import type { Answer, Page } from "./contract.js";
import {
  type ClientList,
  type DeadList,
  parseClients,
  parseDead,
  parseLanes,
  parseStats,
  type Rates,
  ratesOf,
  type Stats,
  type StreamList,
  tripWords,
} from "./delivery.js";

/** Milliseconds between two looks. */
const EVERY = 2_000;

export class DeliveryStore {
  stats: Stats | null = $state.raw(null);
  rates: Rates | null = $state.raw(null);
  clients: ClientList | null = $state.raw(null);
  streams: StreamList | null = $state.raw(null);
  dead: DeadList | null = $state.raw(null);
  /** Why a part can't be shown, in words. */
  clientsTrouble: string | null = $state(null);
  streamsTrouble: string | null = $state(null);
  deadTrouble: string | null = $state(null);
  trouble: string | null = $state(null);
  /** What the last action did, in words. */
  said = $state("");
  /** What is being done: clients and dead events whose buttons wait for an answer. */
  busy: ReadonlySet<string> = $state.raw(new Set());
  private timer: ReturnType<typeof setTimeout> | undefined;
  private ended = false;

  constructor(private readonly page: Page) {}

  /** Look now, and again while the page can be seen; returns what ends it. */
  open(): () => void {
    const look = () => {
      if (document.visibilityState === "visible") void this.look();
    };
    document.addEventListener("visibilitychange", look);
    look();
    return () => {
      this.ended = true;
      document.removeEventListener("visibilitychange", look);
      clearTimeout(this.timer);
    };
  }

  async ping(id: string, name: string): Promise<void> {
    const answer = await this.act(id, `v1/clients/${encodeURIComponent(id)}/ping`, "POST");
    if (!answer.ok) this.said = `${name} was not pinged: ${answer.detail}`;
    else {
      const trip = (answer.body as { round_trip?: unknown } | null)?.round_trip;
      this.said =
        typeof trip === "number"
          ? `${name} answered in ${tripWords(trip)}.`
          : `${name} gave no answer within three seconds; a plain Socket.IO client never does.`;
    }
    await this.look();
  }

  async disconnect(id: string, name: string): Promise<void> {
    const answer = await this.act(id, `v1/clients/${encodeURIComponent(id)}/disconnect`, "POST");
    this.said = answer.ok
      ? `${name} was disconnected. It may come back, and goes on from its cursor.`
      : `${name} was not disconnected: ${answer.detail}`;
    await this.look();
  }

  async redrive(id: string, name: string): Promise<void> {
    const answer = await this.act(id, `v1/dead/${encodeURIComponent(id)}/redrive`, "POST");
    this.said = answer.ok
      ? `${name} is in its stream again.`
      : `${name} stays dead: ${answer.detail}`;
    await this.look();
  }

  async drop(id: string, name: string): Promise<void> {
    const answer = await this.act(id, `v1/dead/${encodeURIComponent(id)}`, "DELETE");
    this.said = answer.ok ? `${name} is forgotten.` : `${name} was not dropped: ${answer.detail}`;
    await this.look();
  }

  private async act(id: string, path: string, method: string): Promise<Answer> {
    this.busy = new Set([...this.busy, id]);
    const answer = await this.page.server.ask(path, { method });
    this.busy = new Set([...this.busy].filter((each) => each !== id));
    return answer;
  }

  private async look(): Promise<void> {
    clearTimeout(this.timer);
    const { server } = this.page;
    const paths = ["v1/stats", "v1/clients", "v1/streams", "v1/dead"];
    const [stats, clients, streams, dead] = await Promise.all(
      paths.map((path) => server.ask(path)),
    );
    if (this.ended) return;
    if (stats) this.takeStats(stats);
    if (clients) this.takeClients(clients);
    if (streams) this.takeStreams(streams);
    if (dead) this.takeDead(dead);
    clearTimeout(this.timer);
    if (document.visibilityState === "visible") {
      this.timer = setTimeout(() => void this.look(), EVERY);
    }
  }

  private takeStats(answer: Answer): void {
    this.trouble = troubleOf(answer);
    const stats = answer.ok ? parseStats(answer.body, performance.now()) : null;
    if (!stats) return;
    this.rates = ratesOf(this.stats, stats) ?? this.rates;
    this.stats = stats;
  }

  private takeClients(answer: Answer): void {
    this.clientsTrouble = troubleOf(answer);
    if (answer.ok) this.clients = parseClients(answer.body);
  }

  private takeStreams(answer: Answer): void {
    this.streamsTrouble = troubleOf(answer);
    if (answer.ok) this.streams = parseLanes(answer.body);
  }

  private takeDead(answer: Answer): void {
    this.deadTrouble = troubleOf(answer);
    if (answer.ok) this.dead = parseDead(answer.body);
  }
}

function troubleOf(answer: Answer): string | null {
  if (answer.ok) return null;
  return answer.status === 403
    ? "Your token doesn't cover this: it takes one with the scope admin."
    : answer.detail;
}
