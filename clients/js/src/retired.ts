/** What subscriptions counted, those that ended included. */

import type { Subscription } from "./subscription.js";

const NAMES = ["replayed", "duplicatesDropped", "gapsRepaired", "lost"] as const;
type Sums = { [name in (typeof NAMES)[number]]: number };

export class Retired {
  private readonly sums: Sums = { replayed: 0, duplicatesDropped: 0, gapsRepaired: 0, lost: 0 };

  add(subscription: Subscription): void {
    Object.assign(this.sums, this.sum([subscription]));
  }

  sum(subscriptions: Iterable<Subscription>): Sums {
    const sums = { ...this.sums };
    for (const { counts } of [...subscriptions].map((each) => each.snapshot())) {
      for (const name of NAMES) sums[name] += counts[name];
    }
    return sums;
  }
}
