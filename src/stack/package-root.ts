import { existsSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of this package, found from src/ and from the built dist/src/ alike. */
export function packageRoot(): string {
  for (const folder of upwards(dirname(fileURLToPath(import.meta.url)))) {
    const manifest = join(folder, "package.json");
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, "utf8")).name === "work-claims") return folder;
  }
  throw new Error("The package.json of work-claims is missing beside its files; install the package again");
}

/** Where an npm package lies, seen from a folder, hoisted or not; undefined where it is not installed. */
export function findPackage(name: string, from: string): string | undefined {
  for (const folder of upwards(from)) {
    const candidate = join(folder, "node_modules", name);
    if (existsSync(join(candidate, "package.json"))) return realpathSync(candidate);
  }
  return undefined;
}

function upwards(folder: string): string[] {
  const parent = dirname(folder);
  return parent === folder ? [folder] : [folder, ...upwards(parent)];
}
