import { expect, it, vi } from "vitest";
import { uuid } from "../src/platform.js";

it("makes UUIDs of version 7, which no two are alike and begin with the time", () => {
  const ids = Array.from({ length: 1_000 }, uuid);
  expect(new Set(ids).size).toBe(1_000);
  for (const id of ids)
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  vi.useFakeTimers({ now: 1_700_000_000_123 });
  expect(Number.parseInt(uuid().replaceAll("-", "").slice(0, 12), 16)).toBe(1_700_000_000_123);
  vi.useRealTimers();
});
