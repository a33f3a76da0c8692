// Imports point one way: supabase/ ← workers/ ← src/.
import { readdirSync, readFileSync } from "node:fs";
import { join, normalize } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..");

interface Import {
  file: string;
  from: string;
}

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => /\.(ts|mts|mjs|js)$/.test(name) && !name.includes("node_modules"))
    .map((name) => join(folder, name));
}

function importsOf(folder: string): Import[] {
  return sources(folder).flatMap((file) => {
    const text = readFileSync(join(root, file), "utf8");
    const found = text.matchAll(/^(?:import|\} from|(?:import|export)\b.* from)\s*"([^"]+)"|\bimport\("([^"]+)"\)/gm);
    return [...found].map((match) => ({ file, from: (match[1] ?? match[2]) as string }));
  });
}

/** The top folder that a relative import reaches. */
const reached = ({ file, from }: Import): string => normalize(join(file, "..", from)).split("/", 1)[0] as string;

const shown = (imports: Import[]): string[] => imports.map(({ file, from }) => `${file} imports ${from}`);

test("workers/ imports its own files only, so any runtime runs it", () => {
  const imports = importsOf("workers");
  expect(imports.length).toBeGreaterThan(10);
  expect(shown(imports.filter((each) => !each.from.startsWith(".") || reached(each) !== "workers"))).toEqual([]);
});

test("workers/ imports files by their full names, as Deno needs them", () => {
  expect(shown(importsOf("workers").filter((each) => !each.from.endsWith(".ts")))).toEqual([]);
});

test("src/ imports from workers/ and itself only", () => {
  const relative = importsOf("src").filter((each) => each.from.startsWith("."));
  expect(shown(relative.filter((each) => !["src", "workers"].includes(reached(each))))).toEqual([]);
});

test("supabase/ imports from itself and workers' runtime only", () => {
  const relative = importsOf("supabase").filter((each) => each.from.startsWith("."));
  expect(shown(relative.filter((each) => !["supabase", "workers"].includes(reached(each))))).toEqual([]);
});

test("no file has a default export", () => {
  const withDefault = ["src", "workers"]
    .flatMap(sources)
    .filter((file) => /^export default\b/m.test(readFileSync(join(root, file), "utf8")));
  expect(withDefault).toEqual([]);
});

test("workers/ has only syntax that can be erased: no enum, no namespace, no parameter property", () => {
  const unerasable = sources("workers").filter((file) =>
    /^\s*(export\s+)?(const\s+)?(enum|namespace)\s|constructor\([^)]*\b(private|public|readonly|protected)\s/m.test(
      readFileSync(join(root, file), "utf8"),
    ),
  );
  expect(unerasable).toEqual([]);
});
