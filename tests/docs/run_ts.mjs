// Check a TypeScript block's types, strip them, and run it: `node run_ts.mjs block.ts`.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const file = process.argv[2];
const ts = createRequire(join(dirname(file), "node_modules", "typescript", "package.json"))("typescript");

const options = {
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  types: [],
};
const errors = ts.getPreEmitDiagnostics(ts.createProgram([file], options));
for (const { messageText } of errors) {
  console.error(ts.flattenDiagnosticMessageText(messageText, "\n"));
}
if (errors.length > 0) process.exit(1);

const script = file.replace(/\.ts$/, ".mjs");
writeFileSync(script, ts.transpile(readFileSync(file, "utf8"), options));
await import(pathToFileURL(script).href);
