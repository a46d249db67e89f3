import { describe, expect, it } from "vitest";
import { hasFailed, outcomeOf } from "../src/lib/calls.js";
import { eventRow, foldCalls } from "../src/lib/row.js";
import { commandOf } from "../src/lib/shell.js";
import { one } from "./events.js";

const hook = (offset: number, name: string, data: object) =>
  one(offset, offset, { type: `claude.${name}`, data: { session_id: "s", ...data } });
const folded = (...events: ReturnType<typeof one>[]) =>
  foldCalls(events.map(eventRow)).map((row) =>
    row.kind === "event" && row.end ? `${row.event.offset}-${row.end.offset}` : row.key,
  );

describe("tool calls", () => {
  it("are one row by their id, whatever comes between", () => {
    const rows = folded(
      hook(1, "PreToolUse", { tool_use_id: "a" }),
      hook(2, "PreToolUse", { tool_use_id: "b" }),
      hook(3, "Notification", {}),
      hook(4, "PostToolUse", { tool_use_id: "a" }),
      hook(5, "PostToolUseFailure", { tool_use_id: "b" }),
    );
    expect(rows).toEqual(["1-4", "2-5", "normal:3"]);
  });

  it("are told apart by what was asked, where they have no id", () => {
    const ls = { tool_name: "Bash", tool_input: { command: "ls" } };
    const pwd = { tool_name: "Bash", tool_input: { command: "pwd" } };
    const rows = folded(
      hook(1, "PreToolUse", ls),
      hook(2, "PreToolUse", pwd),
      hook(3, "PreToolUse", ls),
      hook(4, "PostToolUse", ls),
      hook(5, "PostToolUse", pwd),
    );
    expect(rows).toEqual(["1-4", "2-5", "normal:3"]);
  });

  it("are known from Claude MPM too", () => {
    const mpm = (offset: number, type: string, data: object) =>
      one(offset, offset, { type, data: { correlation_id: "c", data } });
    const begin = mpm(1, "hook.pre_tool", { tool_name: "Bash" });
    const end = mpm(2, "hook.post_tool", { tool_name: "Bash", exit_code: 2 });
    expect(folded(begin, end)).toEqual(["1-2"]);
    expect(outcomeOf(begin, end)).toEqual({ failed: true, duration: 1_000 });
  });

  it("leave an end without its beginning as it is", () => {
    expect(folded(hook(1, "PostToolUse", { tool_use_id: "a" }))).toEqual(["normal:1"]);
  });

  it("give the same row for the same pair", () => {
    const rows = [
      hook(1, "PreToolUse", { tool_use_id: "a" }),
      hook(2, "PostToolUse", { tool_use_id: "a" }),
    ];
    const made = rows.map(eventRow);
    expect(foldCalls(made)[0]).toBe(foldCalls(made)[0]);
  });

  it("say how they went", () => {
    const begin = hook(1, "PreToolUse", {});
    expect(outcomeOf(begin, hook(3, "PostToolUse", { duration_ms: 250 }))).toEqual({
      failed: false,
      duration: 250,
    });
    expect(outcomeOf(begin, hook(3, "PostToolUseFailure", {}))).toEqual({
      failed: true,
      duration: 2_000,
    });
    expect(outcomeOf(hook(5, "PreToolUse", {}), hook(3, "PostToolUse", {})).duration).toBeNull();
    expect(hasFailed(hook(1, "PostToolUse", { tool_response: { exit_code: 1 } }))).toBe(true);
    expect(hasFailed(hook(1, "Stop", { exit_code: 1 }))).toBe(false);
  });
});

describe("a command", () => {
  it("is read from Claude MPM's box too", () => {
    const data = { tool_name: "Bash", tool_parameters: { command: "make" } };
    const boxed = { subtype: "pre_tool", cwd: "/w", data };
    expect(commandOf(one(1, 1, { data: boxed }), null)).toMatchObject({
      command: "make",
      cwd: "/w",
    });
  });

  it("is shown with what it said", () => {
    const begin = hook(1, "PreToolUse", {
      cwd: "/w",
      tool_input: { command: "ls", description: "List" },
    });
    const end = hook(2, "PostToolUse", { tool_response: { stdout: "a\n", stderr: "warned" } });
    expect(commandOf(begin, end)).toEqual({
      command: "ls",
      description: "List",
      cwd: "/w",
      output: "a\n",
      error: "warned",
    });
    expect(commandOf(begin, null)?.output).toBe("");
    expect(commandOf(hook(1, "Stop", {}), null)).toBeNull();
  });
});
