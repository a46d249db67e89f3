/** Where the page is: its address, as state. */

import type { Change, Filter, Navigation, ViewName } from "./contract.js";
import { changed, type Query, readQuery, writeQuery } from "./query.js";

/** Browsers refuse an address that changes with every key of a fast typist; in milliseconds. */
const TYPING = 300;

export class PageNavigation implements Navigation {
  private query: Query = $state.raw(readQuery(location.search));
  private typing: ReturnType<typeof setTimeout> | undefined;

  get view(): ViewName {
    return this.query.view;
  }

  get stream(): string | null {
    return this.query.stream;
  }

  get filter(): Filter {
    return this.query.filter;
  }

  param(name: string): string | null {
    return this.query.params[name] ?? null;
  }

  href(change: Change): string {
    return writeQuery(changed(this.query, change)) || location.pathname;
  }

  go(change: Change, how: "push" | "replace" = "push"): void {
    if (how === "push") this.settle();
    const before = writeQuery(this.query);
    this.query = changed(this.query, change);
    clearTimeout(this.typing);
    if (how === "replace") this.typing = setTimeout(() => this.settle(), TYPING);
    else if (writeQuery(this.query) !== before) history.pushState(null, "", this.href({}));
  }

  /** Follow a link within the page; `search` is its address's. */
  visit(search: string): void {
    this.settle();
    if (search !== location.search) history.pushState(null, "", search || location.pathname);
    this.query = readQuery(search);
  }

  /** Read the address anew: somebody went back or forward. */
  back(): void {
    clearTimeout(this.typing);
    this.typing = undefined;
    this.query = readQuery(location.search);
  }

  /** Write what was typed: who goes on before its time is up comes back to it. */
  private settle(): void {
    if (this.typing === undefined) return;
    clearTimeout(this.typing);
    this.typing = undefined;
    history.replaceState(null, "", this.href({}));
  }
}
