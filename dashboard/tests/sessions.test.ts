import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { SeenEvent } from "../src/lib/contract.js";
import { Sessions } from "../src/lib/sessions.js";
import { asking, endOf, ordered, secondsOf, stateOf, treeOf } from "../src/lib/sessions_state.js";
import { askWords } from "../src/lib/sessions_words.js";
import { one } from "./events.js";

const START = Date.UTC(2026, 0, 1);
let offset = 0;

function hook(second: number, name: string, more: object = {}): SeenEvent {
  offset += 1;
  const data = { session_id: "s1", cwd: "/work", hook_event_name: name, ...more };
  return one(offset, second, { type: `claude.${name}`, source: "claude-code/s1", data });
}

function tool(second: number, name: string, id: string, more: object = {}): SeenEvent {
  return hook(second, name, { tool_name: "Bash", tool_use_id: id, ...more });
}

function reduced(...events: SeenEvent[]): Sessions {
  const sessions = new Sessions();
  sessions.apply(events);
  return sessions;
}

function only(...events: SeenEvent[]) {
  const [session] = reduced(...events).list();
  if (!session) throw new Error("no session");
  return session;
}

const at = (second: number) => START + second * 1_000;

describe("the state of a session", () => {
  const begun = [
    hook(0, "SessionStart", { model: "m1" }),
    hook(1, "UserPromptSubmit", { prompt: "Go" }),
  ];

  it.each([
    ["idle before the first prompt", [begun[0]], 2, "idle"],
    ["working after a prompt", begun, 2, "working"],
    ["done after a stop", [...begun, hook(5, "Stop")], 1_000, "done"],
    [
      "failed where an error stopped it",
      [...begun, hook(5, "StopFailure", { error: "x" })],
      6,
      "failed",
    ],
    ["ended", [...begun, hook(5, "SessionEnd")], 6, "ended"],
    [
      "idle again when it is resumed",
      [...begun, hook(5, "SessionEnd"), hook(9, "SessionStart")],
      10,
      "idle",
    ],
    ["stuck after five silent minutes at work", begun, 301, "stuck"],
    ["not stuck just before", begun, 300, "working"],
    ["waiting for permission", [...begun, tool(3, "PermissionRequest", "t")], 1_000, "waiting"],
    [
      "waiting for an answer",
      [...begun, hook(3, "Elicitation", { message: "Which?" })],
      4,
      "waiting",
    ],
    [
      "working once a tool runs again",
      [...begun, tool(3, "PermissionRequest", "t"), tool(4, "PostToolUse", "t")],
      5,
      "working",
    ],
    [
      "working once an answer was given",
      [...begun, hook(3, "Elicitation"), hook(4, "ElicitationResult")],
      5,
      "working",
    ],
    [
      "still waiting where only files change",
      [...begun, tool(3, "PermissionRequest", "t"), hook(4, "FileChanged")],
      5,
      "waiting",
    ],
    [
      "still waiting where another agent goes on",
      [...begun, tool(3, "PermissionRequest", "t"), tool(4, "PreToolUse", "u", { agent_id: "a1" })],
      5,
      "waiting",
    ],
    [
      "still waiting where a call that began before goes on beside",
      [
        ...begun,
        tool(2, "PreToolUse", "t", { tool_input: { command: "git push" } }),
        tool(2, "PreToolUse", "u", { tool_name: "Read" }),
        tool(3, "PermissionRequest", "", { tool_input: { command: "git push" } }),
        tool(4, "PostToolUse", "u", { tool_name: "Read" }),
      ],
      5,
      "waiting",
    ],
    [
      "working once the agent that asked has stopped",
      [
        ...begun,
        tool(3, "PermissionRequest", "", { agent_id: "a1" }),
        hook(4, "SubagentStop", { agent_id: "a1" }),
      ],
      5,
      "working",
    ],
    [
      "done where it only waits for a prompt",
      [...begun, hook(4, "Stop"), hook(9, "Notification", { notification_type: "idle_prompt" })],
      10,
      "done",
    ],
  ] as const)("is %s", (_, events, second, state) => {
    const session = only(...(events as SeenEvent[]));
    expect(stateOf(session, at(second))).toBe(state);
  });

  it("is the same where the critical lane came first, as after a reload", () => {
    const asked = tool(3, "PermissionRequest", "t");
    const granted = tool(4, "PostToolUse", "t");
    expect(stateOf(only(asked, ...begun), at(5))).toBe("waiting");
    expect(stateOf(only(asked, tool(3, "PreToolUse", "t")), at(5))).toBe("waiting");
    expect(stateOf(only(asked, ...begun, granted), at(5))).toBe("working");
    expect(stateOf(only(...begun, granted, asked), at(5))).toBe("working");
    expect(stateOf(only(...begun, hook(9, "Stop"), asked), at(10))).toBe("done");
  });

  it.each([-7, 7])("is not stuck by the clock of a host that is %i min off", (minutes) => {
    const told = { ...begun[1], keptAt: at(600), publishedAt: at(600 + minutes * 60) } as SeenEvent;
    const session = only(told);
    expect(stateOf(session, at(899))).toBe("working");
    expect(stateOf(session, at(900))).toBe("stuck");
    const live = { ...told, keptAt: undefined, arrivedAt: at(1_000) } as SeenEvent;
    const sessions = new Sessions();
    sessions.apply([live], true);
    expect(sessions.list().map((each) => stateOf(each, at(1_299)))).toEqual(["working"]);
    expect(sessions.list().map((each) => stateOf(each, at(1_300)))).toEqual(["stuck"]);
  });

  it("is waiting until each of several was answered", () => {
    const ask = (second: number, agent: string, command: string) =>
      tool(second, "PermissionRequest", "", { agent_id: agent, tool_input: { command } });
    const granted = (second: number, agent: string, command: string) =>
      tool(second, "PostToolUse", "", { agent_id: agent, tool_input: { command } });
    const asked = [...begun, ask(3, "a1", "push"), ask(4, "a2", "rm"), ask(5, "a2", "mv")];
    const said = hook(9, "Notification", { notification_type: "permission_prompt", message: "?" });
    const whats = (...more: SeenEvent[]) => only(...asked, said, ...more).asks[0]?.what;
    expect(whats()).toBe("Bash: push");
    const first = granted(10, "a1", "push");
    expect(whats(first)).toBe("Bash: rm");
    expect(whats(first, granted(11, "a2", "rm"))).toBe("Bash: mv");
    expect(whats(first, granted(11, "a2", "rm"), granted(12, "a2", "mv"))).toBeUndefined();
  });

  it("is waiting where what was asked comes behind another agent's later step", () => {
    const asked = tool(3, "PermissionRequest", "", { tool_input: { command: "push" } });
    const other = tool(3.01, "PreToolUse", "u", { agent_id: "a1" });
    expect(stateOf(only(...begun, other, asked), at(5))).toBe("waiting");
  });

  it("says what is waited for, and by whom", () => {
    const asked = tool(3, "PermissionRequest", "t", {
      agent_id: "a1",
      tool_input: { command: "git push" },
    });
    expect(only(...begun, asked).asks[0]).toMatchObject({
      since: at(3),
      agent: "a1",
      what: "Bash: git push",
    });
  });
});

describe("what a session did", () => {
  it("is called by its first prompt's first line, also where that one is read last", () => {
    const later = hook(9, "UserPromptSubmit", { prompt: "Go on" });
    const first = hook(1, "UserPromptSubmit", { prompt: "Fix it\nplease" });
    expect(only(later, first).title).toBe("Fix it");
    expect(only(later, first).prompts.map(({ text }) => text)).toEqual(["Fix it\nplease", "Go on"]);
  });

  it("has one call of Pre and Post, with its time and what it was for", () => {
    const session = only(
      tool(1, "PreToolUse", "t1", { tool_input: { command: "ls" } }),
      tool(3, "PostToolUse", "t1"),
    );
    expect(session.calls).toMatchObject([
      { tool: "Bash", about: "ls", start: at(1), end: at(3), outcome: "ok" },
    ]);
    expect([...session.tools]).toEqual([["Bash", 1]]);
  });

  it.each([
    ["PostToolUseFailure", "failed", { error: "Exit code 1" }, "Bash failed", "Exit code 1"],
    ["PermissionDenied", "denied", { reason: "not here" }, "Bash was denied", "not here"],
  ])("counts %s as a trouble of its agent", (name, outcome, more, what, detail) => {
    const session = only(tool(1, "PreToolUse", "t1"), tool(2, name, "t1", more));
    expect(session.calls).toMatchObject([{ outcome, detail }]);
    expect(session.troubles).toMatchObject([{ what, detail, at: at(2) }]);
    expect(session.agents.get("")).toMatchObject({ calls: 1, failures: 1 });
  });

  it("matches calls without ids by tool, agent and order", () => {
    const bare = (second: number, name: string) => hook(second, name, { tool_name: "Read" });
    const session = only(
      bare(1, "PreToolUse"),
      bare(2, "PreToolUse"),
      bare(3, "PostToolUse"),
      bare(5, "PostToolUse"),
    );
    expect(session.calls.map(({ start, end }) => [start, end])).toEqual([
      [at(1), at(3)],
      [at(2), at(5)],
    ]);
  });

  it("takes the length of a call whose beginning is not here from its end", () => {
    const session = only(tool(10, "PostToolUse", "t1", { duration_ms: 4_000 }));
    expect(session.calls).toMatchObject([{ start: at(6), end: at(10), outcome: "ok" }]);
  });

  it("ends what was open when its agent stops, and says that nobody knows how", () => {
    const session = only(tool(1, "PreToolUse", "t1"), hook(4, "Stop"));
    expect(session.calls).toMatchObject([{ end: at(4), outcome: "unknown" }]);
  });

  it("has a call once, however often and in whatever order its hooks come", () => {
    const pre = () => tool(1, "PreToolUse", "t1", { tool_input: { command: "ls" } });
    const post = () => tool(3, "PostToolUse", "t1");
    for (const order of [
      [pre(), pre(), post(), post()],
      [post(), pre()],
      [post(), pre(), post()],
    ]) {
      const session = only(...order);
      expect([session.called, session.agents.get("")?.calls]).toEqual([1, 1]);
      expect(session.calls).toMatchObject([
        { about: "ls", start: at(1), end: at(3), outcome: "ok" },
      ]);
    }
  });

  it("has no call open that began before its agent stopped, also where that is read last", () => {
    const pre = tool(1, "PreToolUse", "t1");
    const session = only(hook(4, "StopFailure", { error: "x" }), pre);
    expect(session.calls).toMatchObject([{ start: at(1), end: at(4), outcome: "unknown" }]);
    const ended = only(
      hook(4, "SubagentStop", { agent_id: "a1" }),
      tool(2, "PreToolUse", "t2", { agent_id: "a1" }),
    );
    expect(ended.calls).toMatchObject([{ end: at(4), outcome: "unknown" }]);
  });

  it("lasts until now while it works, and until its last event afterwards", () => {
    const session = only(hook(0, "SessionStart"), hook(10, "UserPromptSubmit", { prompt: "x" }));
    expect(secondsOf(session, at(60), "working")).toBe(60);
    expect(secondsOf(session, at(60), "done")).toBe(10);
  });

  it("has its agents as a tree, each below the call that began it", () => {
    const task = (second: number, id: string, type: string, more: object = {}) =>
      tool(second, "PreToolUse", id, {
        tool_name: "Agent",
        tool_input: { description: `ask ${type}`, subagent_type: type },
        ...more,
      });
    const start = (second: number, id: string, type: string) =>
      hook(second, "SubagentStart", { agent_id: id, agent_type: type });
    const session = only(
      hook(0, "UserPromptSubmit", { prompt: "x" }),
      task(1, "t1", "review"),
      task(1.5, "t2", "test"),
      start(2, "a1", "review"),
      start(2.5, "a2", "test"),
      task(3, "t3", "review", { agent_id: "a2" }),
      start(4, "a3", "review"),
      hook(9, "SubagentStop", { agent_id: "a3", agent_type: "review" }),
    );
    const rows = treeOf(session).map(({ agent, depth }) => [agent.id, depth, agent.task]);
    expect(rows).toEqual([
      ["", 0, ""],
      ["a1", 1, "ask review"],
      ["a2", 1, "ask test"],
      ["a3", 2, "ask review"],
    ]);
    expect(session.agents.get("a3")?.end).toBe(at(9));
  });
});

describe("the shape of Claude MPM", () => {
  const mpm = (second: number, subtype: string, detail: object) =>
    one(++offset, second, {
      type: `hook.${subtype}`,
      source: "claude-mpm/m1",
      data: {
        event: "claude_event",
        source: "claude_hooks",
        type: "hook",
        subtype,
        session_id: "m1",
        cwd: "/srv",
        correlation_id: "c1",
        data: detail,
      },
    });

  it("is read as the same session", () => {
    const session = only(
      mpm(0, "user_prompt", { prompt_text: "Deploy" }),
      mpm(1, "pre_tool", { tool_name: "Bash", tool_parameters: { command: "make" } }),
      mpm(3, "post_tool", { tool_name: "Bash", exit_code: 2, error_type: "exit" }),
      mpm(4, "stop", {}),
    );
    expect(session).toMatchObject({
      id: "m1",
      title: "Deploy",
      cwd: "/srv",
      program: "claude-mpm",
    });
    expect(session.calls).toMatchObject([
      { about: "make", outcome: "failed", start: at(1), end: at(3) },
    ]);
    expect(stateOf(session, at(5))).toBe("done");
  });
});

describe("what comes in", () => {
  it.each([
    ["text", "x"],
    ["null", null],
    ["no session", { hook_event_name: "Stop" }],
    ["a session that is none", { session_id: 5, hook_event_name: "Stop" }],
    ["an empty box", { data: {}, session_id: "s" }],
  ])("is left alone and counted where it is %s", (_, data) => {
    const sessions = reduced(one(1, 0, { data }));
    expect([sessions.list().length, sessions.foreign]).toEqual([0, 1]);
  });

  it("may have fields of any form", () => {
    const odd = {
      tool_name: 7,
      tool_input: [],
      prompt: {},
      agent_id: null,
      duration_ms: "x",
      cwd: 1,
    };
    for (const name of ["PreToolUse", "PostToolUse", "UserPromptSubmit", "Stop", "NewHook"]) {
      expect(reduced(hook(1, name, odd)).list()).toHaveLength(1);
    }
  });

  it("keeps the agents at work before those at their end, and takes in no older one", () => {
    const sessions = new Sessions({ agents: 3 });
    const agents = () => [...(sessions.list()[0]?.agents.keys() ?? [])];
    sessions.apply([
      hook(0, "UserPromptSubmit"),
      hook(1, "SubagentStart", { agent_id: "long" }),
      hook(2, "SubagentStart", { agent_id: "short" }),
      hook(3, "SubagentStop", { agent_id: "short" }),
      hook(4, "SubagentStart", { agent_id: "new" }),
    ]);
    expect(agents()).toEqual(["", "long", "new"]);
    sessions.apply([hook(0.5, "SubagentStart", { agent_id: "before" })]);
    expect(agents()).toEqual(["", "long", "new"]);
    expect(sessions.list()[0]?.dropped).toBe(2);
  });

  it("is bounded in every direction, and counts what had to go", () => {
    const sessions = new Sessions({
      sessions: 2,
      calls: 3,
      prompts: 2,
      troubles: 2,
      marks: 5,
      agents: 2,
      tools: 2,
    });
    for (let n = 0; n < 10; n += 1) {
      sessions.apply([
        hook(n, "UserPromptSubmit", { prompt: `p${n}` }),
        tool(n, "PreToolUse", `t${n}`, { tool_name: `T${n}`, agent_id: `a${n}` }),
        tool(n, "PostToolUseFailure", `t${n}`, { tool_name: `T${n}`, agent_id: `a${n}` }),
      ]);
    }
    const [session] = sessions.list();
    expect(session?.calls).toHaveLength(3);
    expect(session?.prompts).toHaveLength(2);
    expect(session?.troubles).toHaveLength(2);
    expect(session?.marks).toHaveLength(5);
    expect([...(session?.agents.keys() ?? [])]).toEqual(["", "a9"]);
    expect([...(session?.tools ?? [])]).toEqual([
      ["T0", 1],
      ["T1", 1],
      ["other", 8],
    ]);
    expect(session).toMatchObject({ called: 10, prompted: 10, failures: 10 });
    expect(session?.dropped).toBe(7 + 8 + 8 + 15 + 9);
    sessions.apply([
      hook(20, "Stop", { session_id: "s2" }),
      hook(30, "Stop", { session_id: "s3" }),
    ]);
    expect(sessions.list().map(({ id }) => id)).toEqual(["s3", "s2"]);
    expect(sessions.evicted).toBe(1);
  });
});

describe("the list of sessions", () => {
  const of = (id: string, second: number, name: string, more: object = {}) =>
    hook(second, name, { session_id: id, ...more });
  const begun = (id: string, second: number) => [
    of(id, second, "SessionStart"),
    of(id, second + 1, "UserPromptSubmit", { prompt: id }),
  ];
  const several = reduced(
    ...begun("old", 0),
    ...begun("new", 10),
    ...begun("asks", 2),
    of("asks", 20, "PermissionRequest", { tool_name: "Bash" }),
    ...begun("over", 4),
    of("over", 40, "Stop"),
    ...begun("gone", 5),
    of("gone", 30, "SessionEnd"),
  );
  const ids = (list: readonly { id: string }[]) => list.map(({ id }) => id);

  it("begins with who waits for a person, then who works, then the rest", () => {
    expect(ids(ordered(several.list(), at(50)))).toEqual(["asks", "new", "old", "over", "gone"]);
  });

  it("moves nobody who goes on working", () => {
    const before = ids(ordered(several.list(), at(50)));
    several.apply([of("old", 51, "PreToolUse", { tool_name: "Bash" })]);
    expect(ids(several.list())[0]).toBe("old");
    expect(ids(ordered(several.list(), at(52)))).toEqual(before);
  });

  it("knows who asks, but not of what was asked before everything was heard", () => {
    expect(ids(asking(several.list(), at(20)))).toEqual(["asks"]);
    expect(asking(several.list(), at(21))).toEqual([]);
    expect(asking(several.list(), Number.POSITIVE_INFINITY)).toEqual([]);
  });

  it("knows who asks again, though what was asked before that may have been answered", () => {
    const twice = reduced(
      ...begun("twice", 0),
      of("twice", 10, "PermissionRequest", { tool_name: "Bash", agent_id: "a1" }),
      of("twice", 30, "PermissionRequest", { tool_name: "Edit", agent_id: "a2" }),
      ...begun("once", 1),
      of("once", 20, "PermissionRequest", { tool_name: "Read" }),
    );
    expect(ids(asking(twice.list(), at(25)))).toEqual(["twice"]);
    expect(ids(asking(twice.list(), at(15)))).toEqual(["twice", "once"]);
    expect(ids(asking(twice.list(), at(31)))).toEqual([]);
  });

  it("says what the first of several asks for, and how many more there are", () => {
    const asks = (count: number) =>
      only(
        ...Array.from({ length: count }, (_, index) =>
          hook(index, "PermissionRequest", { tool_name: `T${index}`, agent_id: `a${index}` }),
        ),
      );
    expect(askWords(asks(1))).toBe("work s1: T0");
    expect(askWords(asks(3))).toBe("work s1: T0, and 2 more");
  });
});

describe("an agent's time", () => {
  it("goes on while a call of its own is open, and ends with its session else", () => {
    const open = only(hook(0, "SessionStart"), tool(3, "PreToolUse", "t1"));
    const closed = only(
      hook(0, "SessionStart"),
      tool(3, "PreToolUse", "t1"),
      tool(9, "PostToolUse", "t1"),
    );
    const end = (session: typeof open) => {
      const [node] = treeOf(session);
      return node && endOf(session, node.agent, at(60));
    };
    expect([end(open), end(closed)]).toEqual([at(60), at(9)]);
  });
});

describe("the recorded demo", () => {
  const recording = readFileSync(
    new URL("../../src/steadcast/demo/session.jsonl", import.meta.url),
    "utf8",
  );
  const events = recording
    .trim()
    .split("\n")
    .map((line, index) => {
      const { at: second, hook: data } = JSON.parse(line);
      return one(index + 1, second, { type: `claude.${data.hook_event_name}`, data });
    });

  it("has two sessions with their titles, agents and ends", () => {
    const sessions = reduced(...events);
    expect(sessions.foreign).toBe(0);
    const [harbor, lantern] = sessions.list().sort((a, b) => a.start - b.start);
    expect(harbor?.title).toMatch(/^Orders should show an estimated delivery date/);
    expect(
      harbor && treeOf(harbor).map(({ agent, depth }) => [agent.type, depth, agent.task]),
    ).toEqual([
      ["main", 0, ""],
      ["Explore", 1, "Find users of Order"],
      ["reviewer", 1, "Review the change"],
      ["test-runner", 1, "Try old orders"],
    ]);
    expect(harbor?.calls.every(({ outcome }) => outcome !== "running")).toBe(true);
    expect(lantern?.model).toBe("deep-2");
    expect(lantern && stateOf(lantern, at(500))).toBe("ended");
    expect(harbor && stateOf(harbor, at(500))).toBe("ended");
  });

  it("is stuck, waiting and working where it stood in the middle", () => {
    const until = (second: number) =>
      reduced(...events.filter(({ publishedAt }) => publishedAt <= at(second))).list();
    const lantern = until(41).find(({ cwd }) => cwd?.includes("lantern"));
    expect(lantern && stateOf(lantern, at(41))).toBe("waiting");
    const harbor = until(41).find(({ cwd }) => cwd?.includes("harbor"));
    expect(harbor && stateOf(harbor, at(41))).toBe("working");
    expect(harbor && stateOf(harbor, at(41 + 400))).toBe("stuck");
  });
});
