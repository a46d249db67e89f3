/** A command that an agent ran, and what it said. Pure. */

import type { SeenEvent } from "./contract.js";
import { fieldsOf, hookOf, inputOf, textOf } from "./seen.js";

export interface Command {
  readonly command: string;
  readonly description: string | null;
  readonly cwd: string | null;
  readonly output: string;
  readonly error: string;
}

/** Read a command out of a hook's event and the one that ended the call; null where it is none. */
export function commandOf(event: SeenEvent, end: SeenEvent | null): Command | null {
  const hook = hookOf(event.data);
  const input = inputOf(hook);
  const command = textOf(input, "command");
  if (command === null) return null;
  const after = hookOf((end ?? event).data);
  const response = after?.tool_response;
  const told = fieldsOf(response);
  return {
    command,
    description: textOf(input, "description"),
    cwd: textOf(fieldsOf(event.data), "cwd"),
    output: textOf(told, "stdout") ?? (typeof response === "string" ? response : ""),
    error: [textOf(told, "stderr"), textOf(after, "error")].filter(Boolean).join("\n"),
  };
}
