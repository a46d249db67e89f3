/** Whether a single character is a shortcut: who speaks to the machine, or hits keys unmeant, turns them off (WCAG 2.1.4). */

import { recall, remember } from "./preference.js";

const NAME = "steadcast.shortcuts";
const OFF = "off";

export class Shortcuts {
  private chosen: boolean = $state(recall(NAME) !== OFF);

  get on(): boolean {
    return this.chosen;
  }

  set on(chosen: boolean) {
    this.chosen = chosen;
    remember(NAME, chosen ? null : OFF);
  }

  /** Whether a key, as the browser names it, does something: arrows, Home or Escape always do. */
  takes(key: string): boolean {
    return this.chosen || key.length > 1;
  }
}
