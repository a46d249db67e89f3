import { describe, expect, it, vi } from "vitest";
import { Listeners, Observed } from "../src/listeners.js";

describe("listeners", () => {
  it("are called in the order in which they came, a once-listener once even if it emits again", () => {
    const listeners = new Listeners(() => undefined);
    const seen: string[] = [];
    listeners.add("e", () => seen.push("on"));
    listeners.add(
      "e",
      () => {
        seen.push("once");
        listeners.call("e", []);
      },
      true,
    );
    listeners.call("e", []);
    expect(seen).toEqual(["on", "once", "on"]);
  });

  it("are taken away one by one, by event, or all", () => {
    const listeners = new Listeners(() => undefined);
    const [a, b] = [vi.fn(), vi.fn()];
    listeners.add("e", a);
    listeners.add("e", b);
    listeners.add("f", b);
    listeners.remove("e", a);
    listeners.call("e", []);
    expect([a.mock.calls.length, b.mock.calls.length]).toEqual([0, 1]);
    listeners.remove("e");
    listeners.call("e", []);
    listeners.call("f", []);
    expect(b).toHaveBeenCalledTimes(2);
    listeners.remove();
    listeners.call("f", []);
    expect(b).toHaveBeenCalledTimes(2);
  });
});

describe("an observed value", () => {
  it("reports a watcher that throws, and tells the others", async () => {
    const reported: unknown[] = [];
    const observed = new Observed(
      () => ({}),
      (error) => reported.push(error),
    );
    const other = vi.fn();
    observed.onChange(() => {
      throw new Error("mine");
    });
    observed.onChange(other);
    observed.changed();
    await Promise.resolve();
    expect(reported).toMatchObject([{ message: "mine" }]);
    expect(other).toHaveBeenCalledOnce();
  });

  it("tells a change that is made while it tells", async () => {
    const observed = new Observed(
      () => ({}),
      () => undefined,
    );
    let told = 0;
    observed.onChange(() => {
      told += 1;
      if (told === 1) observed.changed();
    });
    observed.changed();
    await Promise.resolve();
    await Promise.resolve();
    expect(told).toBe(2);
  });
});
