import { describe, expect, it, vi } from "vitest";
import { InvalidRequest } from "../src/errors.js";
import type { SocketClientOptions } from "../src/options.js";
import { SocketClient } from "../src/socket_client.js";
import { FakeNet } from "./fake.js";

const NUMBERS = [
  "maxRetryAttempts",
  "maxQueueSize",
  "pingTimeout",
  "healthCheckInterval",
  "ackTimeout",
  "flushSpacing",
  "reconnectDelay",
  "reconnectDelayMax",
] as const;
const WRONG = [Number.NaN, -1, "1000", null, [1]];

/** Without their types, as JavaScript gives them. */
function wrong(options: object): SocketClientOptions {
  return options;
}

describe("settings that can't be", () => {
  for (const name of NUMBERS) {
    it(`refuses ${name} by its name`, () => {
      const net = new FakeNet();
      for (const value of WRONG) {
        const make = () => net.client(wrong({ [name]: value }));
        expect(make).toThrow(InvalidRequest);
        expect(make).toThrow(name);
      }
      expect(net.sockets).toEqual([]);
    });
  }

  it("refuses a URL that is no text, such as its options in its place", () => {
    for (const value of [
      new URL("http://127.0.0.1:8765"),
      { url: "http://127.0.0.1:8765" },
      null,
    ]) {
      const make = () => new SocketClient(value as unknown as string, { autoConnect: false });
      expect(make).toThrow(InvalidRequest);
      expect(make).toThrow("the URL must be a text");
    }
  });

  it("refuses a time of 0 where nothing would ever be in time", () => {
    const net = new FakeNet();
    for (const name of ["pingTimeout", "healthCheckInterval", "ackTimeout"] as const)
      expect(() => net.client({ [name]: 0 })).toThrow(name);
  });

  it("takes what never comes, and nothing at all", () => {
    const net = new FakeNet();
    const never = { pingTimeout: Number.POSITIVE_INFINITY, maxQueueSize: 0, retryDelays: [] };
    const client = net.client({ ...never, maxRetryAttempts: 0, flushSpacing: 0 });
    expect(client.pingTimeout).toBe(Number.POSITIVE_INFINITY);
    client.close();
  });

  it("refuses delays that are no list of times", () => {
    const net = new FakeNet();
    for (const retryDelays of [1_000, [Number.NaN], ["1s"], [1, -1]])
      expect(() => net.client(wrong({ retryDelays }))).toThrow("retryDelays");
  });

  it("refuses them as fields too, and keeps what was there", () => {
    const client = new FakeNet().client();
    expect(() => {
      client.maxQueueSize = Number.NaN;
    }).toThrow("maxQueueSize");
    expect(() => {
      client.pingTimeout = 0;
    }).toThrow("pingTimeout");
    expect([client.maxQueueSize, client.pingTimeout]).toEqual([100, 40_000]);
    client.close();
  });

  it("refuses an emission's, and takes nothing of it", () => {
    const client = new FakeNet().client();
    const cases = [{ maxRetries: Number.NaN }, { retryDelays: 1_000 }, { priority: "high" }];
    for (const options of cases)
      expect(() => client.emitWithRetry("e", 1, options as never)).toThrow(InvalidRequest);
    client.maxRetryAttempts = Number.NaN;
    expect(() => client.emitWithRetry("e", 1)).toThrow("maxRetries");
    expect(() => client.cut(Number.NaN)).toThrow("seconds");
    const { queuedEvents, pendingEmissions } = client.getConnectionMetrics();
    expect([queuedEvents, pendingEmissions]).toEqual([0, 0]);
    client.close();
  });

  it("asks for a URL where there is no page, once it is to connect", () => {
    const client = new SocketClient(undefined, { autoConnect: false });
    expect(() => client.connect()).toThrow("URL");
    client.close();
    vi.stubGlobal("location", {
      href: "http://127.0.0.1:9/",
      protocol: "http:",
      host: "127.0.0.1:9",
    });
    const placed = new SocketClient();
    expect(placed.snapshot().state).toBe("connecting");
    placed.close();
    vi.unstubAllGlobals();
  });
});
