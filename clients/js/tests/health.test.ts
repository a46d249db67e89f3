import { describe, expect, it } from "vitest";
import { Health } from "../src/health.js";

/** Runs the checks when they are due, until one says stale; gives its time. */
function firstStale(health: Health, until: number): number | undefined {
  for (
    let at = health.nextDeadline();
    at !== undefined && at <= until;
    at = health.nextDeadline()
  ) {
    if (health.handleTimeout(at)) return at;
  }
  return undefined;
}

describe("health", () => {
  it("finds a connection stale 40 s after its last ping, at the next check", () => {
    const health = new Health();
    health.welcomed(0);
    expect(firstStale(health, 29_999)).toBeUndefined();
    health.pinged(30_000);
    expect(firstStale(health, 200_000)).toBe(70_000);
  });

  it("counts from the welcome where no ping ever came", () => {
    const health = new Health();
    health.welcomed(0);
    expect(firstStale(health, 200_000)).toBe(40_000);
  });

  it("gives a server that pings seldom the time that it told, and a longer one that is set", () => {
    const health = new Health();
    health.welcomed(0, 60_000);
    expect(firstStale(health, 200_000)).toBe(70_000);
    health.welcomed(300_000);
    expect(firstStale(health, 500_000)).toBe(340_000);
    const patient = new Health({ pingTimeout: 90_000 });
    patient.welcomed(0, 60_000);
    expect(firstStale(patient, 200_000)).toBe(90_000);
  });

  it("judges nothing before a welcome: other servers send no pings", () => {
    const health = new Health();
    health.pinged(0);
    expect(health.nextDeadline()).toBeUndefined();
    expect(health.handleTimeout(1_000_000)).toBe(false);
  });

  it("has nothing to look for once the connection is gone, or was found stale", () => {
    const health = new Health();
    health.welcomed(0);
    health.disconnected();
    expect(health.nextDeadline(), "a time that has passed would ring without end").toBeUndefined();
    health.welcomed(0);
    expect(firstStale(health, 200_000)).toBe(40_000);
    expect(health.nextDeadline()).toBeUndefined();
  });

  it("judges a check that a throttled timer ran late by the time at which it should have run", () => {
    const health = new Health();
    health.welcomed(0);
    health.handleTimeout(10_000);
    expect(health.handleTimeout(75_000), "the pings may wait behind the timer").toBe(false);
    health.pinged(75_001);
    expect(firstStale(health, 110_000)).toBeUndefined();
  });

  it("finds a dead connection even if every check is late", () => {
    const health = new Health();
    health.welcomed(0);
    expect(health.handleTimeout(60_000)).toBe(false);
    expect(health.handleTimeout(120_000)).toBe(true);
  });

  it("gives a connection its chance after the machine slept for hours", () => {
    const health = new Health();
    health.welcomed(0);
    expect(health.handleTimeout(7_200_000)).toBe(false);
    expect(health.handleTimeout(7_210_000)).toBe(true);
  });

  it("tells the time since the last ping, over reconnects", () => {
    const health = new Health();
    expect(health.sinceLastPing(5)).toBeNull();
    health.welcomed(0);
    health.pinged(1_000);
    health.disconnected();
    expect(health.sinceLastPing(6_000)).toBe(5_000);
  });
});
