import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Alarm } from "../src/alarm.js";

describe("an alarm", () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: 1_000 });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  function made() {
    const rung: number[] = [];
    const alarm = new Alarm(Date, () => rung.push(Date.now()));
    return { alarm, rung };
  }

  it("rings once, at the earliest deadline", () => {
    const { alarm, rung } = made();
    alarm.set([1_500, undefined, 1_200]);
    vi.advanceTimersByTime(5_000);
    expect(rung).toEqual([1_200]);
  });

  it("forgets the deadlines before, and is silent without any", () => {
    const { alarm, rung } = made();
    alarm.set([1_200]);
    alarm.set([1_300]);
    vi.advanceTimersByTime(250);
    alarm.set([undefined]);
    vi.advanceTimersByTime(5_000);
    expect(rung).toEqual([]);
  });

  it("rings at once for what is past, and never a fraction too early", () => {
    const { alarm, rung } = made();
    alarm.set([400]);
    vi.advanceTimersByTime(0);
    alarm.set([1_010.2]);
    vi.advanceTimersByTime(10);
    expect(rung).toEqual([1_000]);
    vi.advanceTimersByTime(1);
    expect(rung).toEqual([1_000, 1_011]);
  });

  it("asks once for the deadlines of all that changes in one go", async () => {
    const { alarm, rung } = made();
    const asked = vi.fn(() => [1_200]);
    for (let change = 0; change < 100; change += 1) alarm.later(asked);
    await vi.advanceTimersByTimeAsync(100);
    alarm.later(asked);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(asked).toHaveBeenCalledTimes(2);
    expect(rung).toEqual([1_200]);
  });

  it("comes before a deadline that no timer reaches, instead of at once", () => {
    const { alarm, rung } = made();
    alarm.set([1e12]);
    vi.advanceTimersByTime(2 ** 31 - 2);
    expect(rung).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(rung).toHaveLength(1);
  });
});
