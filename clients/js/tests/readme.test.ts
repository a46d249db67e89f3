import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { expect, it } from "vitest";

const HERE = new URL("../", import.meta.url);

it("shows only code that compiles", { timeout: 60_000 }, () => {
  const readme = readFileSync(new URL("README.md", HERE), "utf8");
  const blocks = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code);
  expect(blocks.length).toBeGreaterThanOrEqual(5);
  const name = fileURLToPath(new URL("tests/readme-snippets.ts", HERE));
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    types: [],
    paths: { "@steadcast/client": [fileURLToPath(new URL("src/index.ts", HERE))] },
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (file) => file === name || fileExists(file);
  host.getSourceFile = (file, version, ...more) =>
    file === name
      ? ts.createSourceFile(file, blocks.join("\n"), version)
      : getSourceFile(file, version, ...more);
  const errors = ts.getPreEmitDiagnostics(ts.createProgram([name], options, host));
  expect(
    errors.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n")),
  ).toEqual([]);
});
