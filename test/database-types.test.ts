// The committed types are those that the Supabase CLI makes of the migrated database. After a change of the schema:
// npx vitest run --config test/vitest.config.ts database-types -u
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { supabase } from "../src/stack/push.ts";
import { openDatabase } from "./support/database.ts";

const root = join(import.meta.dirname, "..");

test("src/database.types.ts is what supabase gen types writes", async () => {
  const { url } = await openDatabase();
  const said = await supabase([
    "gen",
    "types",
    "--lang=typescript",
    "--schema=public",
    `--remote=${url}`,
    "--yes",
    "--workdir",
    root,
  ]);
  const types = said.slice(said.indexOf("export type Json"), said.lastIndexOf("} as const") + "} as const\n".length);
  const biome = join(root, "node_modules", ".bin", "biome");
  const formatted = execFileSync(biome, ["format", "--stdin-file-path=src/database.types.ts"], {
    cwd: root,
    input: types,
  });
  await expect(formatted.toString()).toMatchFileSnapshot("../src/database.types.ts");
});
