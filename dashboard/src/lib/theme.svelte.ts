/** Dark or light: the system's wish, or the other one by hand, kept over a reload where that is possible. */

import { recall, remember } from "./preference.js";

export type Scheme = "dark" | "light";

const NAME = "steadcast.theme";

function kept(): Scheme | null {
  const value = recall(NAME);
  return value === "dark" || value === "light" ? value : null;
}

export class Theme {
  private chosen: Scheme | null = $state(kept());
  private readonly query = matchMedia("(prefers-color-scheme: dark)");
  private wish: Scheme = $state(this.query.matches ? "dark" : "light");

  constructor() {
    this.query.addEventListener("change", ({ matches }) => {
      this.wish = matches ? "dark" : "light";
    });
    this.apply();
  }

  get scheme(): Scheme {
    return this.chosen ?? this.wish;
  }

  /** Change to the other one; back at the system's wish, it is followed again. */
  toggle(): void {
    const next = this.scheme === "dark" ? "light" : "dark";
    this.chosen = next === this.wish ? null : next;
    remember(NAME, this.chosen);
    this.apply();
  }

  private apply(): void {
    const { dataset } = document.documentElement;
    if (this.chosen) dataset.theme = this.chosen;
    else delete dataset.theme;
  }
}
