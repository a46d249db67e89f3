import { expect, it, vi } from "vitest";
import { PLATFORM, uuid } from "../src/platform.js";

it("hears in a worker, which has no window, that the network is back", () => {
  const worker = new EventTarget();
  vi.stubGlobal("addEventListener", worker.addEventListener.bind(worker));
  vi.stubGlobal("removeEventListener", worker.removeEventListener.bind(worker));
  const wake = vi.fn();
  const end = PLATFORM.onWake(wake);
  worker.dispatchEvent(new Event("online"));
  expect(wake).toHaveBeenCalledTimes(1);
  end();
  worker.dispatchEvent(new Event("online"));
  expect(wake).toHaveBeenCalledTimes(1);
  vi.unstubAllGlobals();
});

it("makes UUIDs of version 7, which no two are alike and begin with the time", () => {
  const ids = Array.from({ length: 1_000 }, uuid);
  expect(new Set(ids).size).toBe(1_000);
  for (const id of ids)
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  vi.useFakeTimers({ now: 1_700_000_000_123 });
  expect(Number.parseInt(uuid().replaceAll("-", "").slice(0, 12), 16)).toBe(1_700_000_000_123);
  vi.useRealTimers();
});
