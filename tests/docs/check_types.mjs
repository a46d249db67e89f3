// Check that types compile in a program without the DOM's: `node check_types.mjs file.ts resolution`.
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const [file, resolution] = process.argv.slice(2);
const ts = createRequire(join(dirname(file), "node_modules", "typescript", "package.json"))("typescript");
const program = ts.createProgram([file], {
  strict: true,
  exactOptionalPropertyTypes: true,
  noEmit: true,
  skipLibCheck: false,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind[resolution] ?? ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind[resolution],
  lib: ["lib.es2022.d.ts"],
  types: [],
});
const errors = ts.getPreEmitDiagnostics(program);
for (const { file: at, messageText } of errors) {
  console.error(at?.fileName, ts.flattenDiagnosticMessageText(messageText, "\n"));
}
process.exit(errors.length > 0 ? 1 : 0);
