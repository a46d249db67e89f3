/** What an edit changes, line by line. Pure. */

import { fieldsOf, textOf } from "./seen.js";

export type Change = "same" | "out" | "in";
export type DiffLine = readonly [change: Change, text: string];

/** What an edit, or one of several, does to a file. */
export interface Edit {
  readonly path: string;
  readonly lines: readonly DiffLine[];
}

/** Lines of both sides, multiplied, up to which they are compared; above, one side stands behind the other. */
const MOST = 400_000;

function linesOf(text: string): string[] {
  return text === "" ? [] : text.replace(/\n$/, "").split("\n");
}

/** Compare two texts by their longest common lines. */
export function diff(before: string, after: string): DiffLine[] {
  const a = linesOf(before);
  const b = linesOf(after);
  if (a.length * b.length > MOST) return [...outs(a), ...ins(b)];
  const common = table(a, b);
  const out: DiffLine[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) {
      out.push(["same", a[i] ?? ""]);
      i += 1;
      j += 1;
    } else if (at(common, i + 1, j) >= at(common, i, j + 1)) {
      out.push(["out", a[i] ?? ""]);
      i += 1;
    } else {
      out.push(["in", b[j] ?? ""]);
      j += 1;
    }
  }
  return [...out, ...outs(a.slice(i)), ...ins(b.slice(j))];
}

/** How many lines the rests behind each pair of places have in common. */
function table(a: readonly string[], b: readonly string[]): Uint32Array[] {
  const common = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const row = common[i];
      if (!row) continue;
      row[j] =
        a[i] === b[j]
          ? at(common, i + 1, j + 1) + 1
          : Math.max(at(common, i + 1, j), at(common, i, j + 1));
    }
  }
  return common;
}

function at(common: readonly Uint32Array[], i: number, j: number): number {
  return common[i]?.[j] ?? 0;
}

function outs(lines: readonly string[]): DiffLine[] {
  return lines.map((text) => ["out", text] as const);
}

function ins(lines: readonly string[]): DiffLine[] {
  return lines.map((text) => ["in", text] as const);
}

/** Read the edits out of a tool's input: Edit, MultiEdit or Write; none where it is another tool's. */
export function editsOf(tool: string | undefined, input: unknown): readonly Edit[] {
  const fields = fieldsOf(input);
  const path = textOf(fields, "file_path") ?? "";
  if (tool === "Write") return [{ path, lines: ins(linesOf(String(fields?.content ?? ""))) }];
  const edits = tool === "Edit" ? [fields] : tool === "MultiEdit" ? listOf(fields?.edits) : [];
  return edits.map((each) => {
    const edit = fieldsOf(each);
    return { path, lines: diff(String(edit?.old_string ?? ""), String(edit?.new_string ?? "")) };
  });
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
