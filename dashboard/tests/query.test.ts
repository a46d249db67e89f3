import { describe, expect, it } from "vitest";
import { changed, NO_FILTER, partsSet, readQuery, writeQuery } from "../src/lib/query.js";

describe("the page's address", () => {
  it("carries view, stream, every part of the filter and a view's own parameters there and back", () => {
    const query = {
      view: "pulse",
      stream: "a:b",
      filter: {
        text: "Bash & ls",
        type: "claude.Stop",
        source: "/x",
        session: "s 1",
        agent: "a",
        priority: "critical",
      },
      params: { span: "5" },
    } as const;
    expect(readQuery(writeQuery(query))).toEqual(query);
  });

  it("is empty where there is nothing to say", () => {
    expect(writeQuery(readQuery(""))).toBe("");
    expect(readQuery("")).toEqual({ view: "feed", stream: null, filter: NO_FILTER, params: {} });
  });

  it("takes what it doesn't know for nothing", () => {
    for (const name of ["", "-a", "a b", "ü", "a".repeat(129)]) {
      expect(readQuery(`?stream=${encodeURIComponent(name)}`).stream).toBeNull();
    }
    expect(readQuery("?view=none&priority=high")).toMatchObject({
      view: "feed",
      filter: { priority: "" },
    });
  });

  it("keeps a view's own parameters in that view alone", () => {
    const query = readQuery("?view=sessions&session=s&id=7");
    expect(changed(query, { params: { id: "8", zoom: "2" } }).params).toEqual({
      id: "8",
      zoom: "2",
    });
    expect(changed(query, { params: { id: null } }).params).toEqual({});
    const away = changed(query, { view: "feed", filter: { text: "x" } });
    expect(away.params).toEqual({});
    expect(away.filter).toEqual({ ...NO_FILTER, session: "s", text: "x" });
    expect(partsSet(away.filter)).toBe(2);
  });
});
