/** Listeners of named events, kept apart from the socket so that they outlive it. */

export type Listener = (...args: never[]) => void;

interface Entry {
  readonly listener: Listener;
  readonly once: boolean;
}

export class Listeners {
  private readonly entries = new Map<string, Entry[]>();

  constructor(private readonly report: (error: unknown) => void) {}

  add(event: string, listener: Listener, once = false): void {
    this.entries.set(event, [...(this.entries.get(event) ?? []), { listener, once }]);
  }

  /** Take one listener away, or all of an event, or all. */
  remove(event?: string, listener?: Listener): void {
    if (event === undefined) this.entries.clear();
    else if (listener === undefined) this.entries.delete(event);
    else this.keep(event, (entry) => entry.listener !== listener);
  }

  /** Call the listeners; one that throws doesn't keep the others from hearing. */
  call(event: string, args: readonly unknown[]): void {
    const entries = this.entries.get(event) ?? [];
    if (entries.some((entry) => entry.once)) this.keep(event, (entry) => !entry.once);
    for (const { listener } of entries) {
      try {
        listener(...(args as never[]));
      } catch (error) {
        this.report(error);
      }
    }
  }

  private keep(event: string, test: (entry: Entry) => boolean): void {
    this.entries.set(event, (this.entries.get(event) ?? []).filter(test));
  }
}

/** A value that can be watched: `snapshot()` is the same object until something has changed. */
export class Observed<T> {
  private readonly watchers = new Set<() => void>();
  private value: T | undefined;
  private told = true;

  constructor(
    private readonly take: () => T,
    private readonly report: (error: unknown) => void,
  ) {}

  snapshot(): T {
    this.value ??= this.take();
    return this.value;
  }

  onChange(watcher: () => void): () => void {
    const own = () => watcher();
    this.watchers.add(own);
    return () => this.watchers.delete(own);
  }

  /** Note a change; watchers hear of many changes once, in the next microtask. */
  changed(): void {
    this.value = undefined;
    if (!this.told) return;
    this.told = false;
    queueMicrotask(() => this.tell());
  }

  private tell(): void {
    this.told = true;
    for (const watcher of this.watchers) {
      try {
        watcher();
      } catch (error) {
        this.report(error);
      }
    }
  }
}
