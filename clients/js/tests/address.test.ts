import { describe, expect, it } from "vitest";
import { addressOf } from "../src/address.js";
import { FakeNet } from "./fake.js";

const PAGE = "https://example.com/app/index.html";

describe("addressOf", () => {
  it("takes the path of a URL for the one that the server stands under", () => {
    for (const url of ["https://example.com/live", "https://example.com/live/"]) {
      const found = addressOf(url, undefined, undefined);
      expect(found).toEqual({ url: "https://example.com/", path: "/live/socket.io" });
    }
    const deep = addressOf("ws://example.com:81/a/b?c=d", undefined, undefined);
    expect(deep).toEqual({ url: "ws://example.com:81/?c=d", path: "/a/b/socket.io" });
  });

  it("counts a URL without a host from the page", () => {
    const found = addressOf("/live", undefined, PAGE);
    expect(found).toEqual({ url: "https://example.com/", path: "/live/socket.io" });
    expect(addressOf(undefined, undefined, PAGE)).toEqual({ url: undefined, path: undefined });
  });

  it("leaves a URL without a path as it is, and what only Socket.IO understands", () => {
    for (const url of [
      "http://127.0.0.1:8765",
      "http://[::1]:8765/",
      "localhost:8765",
      "example.com",
    ])
      expect(addressOf(url, undefined, PAGE)).toEqual({ url, path: undefined });
  });

  it("leaves the URL to Socket.IO, namespace included, where the path of Socket.IO is said", () => {
    const found = addressOf("https://example.com/space", "/live/socket.io", PAGE);
    expect(found).toEqual({ url: "https://example.com/space", path: "/live/socket.io" });
  });

  it("begins the path of Socket.IO with a slash, without which the host's name would go on", () => {
    expect(addressOf("https://example.com", "socket.io", undefined).path).toBe("/socket.io");
  });
});

it("is where a client connects", () => {
  const net = new FakeNet();
  const client = net.client({}, "http://server/live");
  expect(net.socket.url).toBe("http://server/");
  expect(net.socket.options.path).toBe("/live/socket.io");
  client.close();
});
