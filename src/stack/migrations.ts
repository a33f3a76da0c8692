import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { packageRoot } from "./package-root.ts";

/** A migration of work-claims, as init put it into a project or found it there. */
export type Addition = {
  /** The file that was written; undefined if the project's newest one is equal to the package's. */
  added: string | undefined;
  /** The newest file of work-claims before that. */
  previous: string | undefined;
  /** Lines about the difference between the two; empty without a previous one. */
  changes: string[];
  /** Whether a config.toml was written. */
  config: boolean;
};

/** The one that everything needs, and those that a project may add. */
export type MigrationName = "work_claims" | "work_schedule" | "work_tokens";

type Migration = { name: string; version: number; text: string };

/**
 * Put a migration of the package into a project. A file that is there is never written again, since push skips its version. The
 * migration is whole and can be run again, so a new release is one more file with the whole text. One that a project may add
 * comes again after each new one of work-claims, which may replace functions that it gives rights on.
 */
export async function addMigration(
  projectDir: string,
  options: { source?: string; now?: Date; name?: MigrationName } = {},
): Promise<Addition> {
  const name = options.name ?? "work_claims";
  const source = options.source ?? join(packageRoot(), "supabase");
  const folder = join(projectDir, "supabase", "migrations");
  await mkdir(folder, { recursive: true });
  const packaged = await packagedMigration(source, name);
  const present = await migrationsIn(folder);
  const previous = present.filter((each) => isOurs(each, name)).at(-1);
  const config = await writeConfig(projectDir, source);
  const needed = name === "work_claims" ? undefined : present.filter((each) => isOurs(each, "work_claims")).at(-1);
  if (previous?.text === packaged.text && previous.version > (needed?.version ?? 0)) {
    return { added: undefined, previous: previous.name, changes: [], config };
  }

  const last = present.at(-1)?.version ?? 0;
  const clock = Number((options.now ?? new Date()).toISOString().replace(/\D/g, "").slice(0, 14));
  const version = [packaged.version, clock].find((candidate) => candidate > last) ?? last + 1;
  const added = `${version}_${name}.sql`;
  await writeFile(join(folder, added), packaged.text, { flag: "wx" });
  return {
    added,
    previous: previous?.name,
    changes: previous && name === "work_claims" ? changesOf(previous.text, packaged.text) : [],
    config,
  };
}

/** Whether a project has a migration of work-claims already. */
export async function holdsMigration(projectDir: string, name: MigrationName = "work_claims"): Promise<boolean> {
  return (await migrationsIn(join(projectDir, "supabase", "migrations"))).some((each) => isOurs(each, name));
}

/** A migration of this package, from its supabase folder. One that a project may add has the version of the other. */
export async function packagedMigration(
  source: string = join(packageRoot(), "supabase"),
  name: MigrationName = "work_claims",
): Promise<Migration> {
  const found = (await migrationsIn(join(source, "migrations"))).filter((each) => isOurs(each, "work_claims")).at(-1);
  if (!found) throw new Error(`${source} has no migration of work-claims; install the package again`);
  if (name === "work_claims") return found;
  return { ...found, name, text: await textOf(join(source, "optional", `${name}.sql`)) };
}

/** The functions, tables and views that the migration makes in the schema public. */
export function publicNames(text: string, kind: "function" | "table" | "view"): string[] {
  const made = text.matchAll(new RegExp(`^create (?:or replace )?${kind} (?:if not exists )?public\\.([a-z_]+)`, "gm"));
  return [...new Set([...made].map((match) => match[1] ?? ""))].sort();
}

function changesOf(before: string, after: string): string[] {
  const version = (text: string): string => /^-- work-claims (\S+)/.exec(text)?.[1] ?? "an unknown version";
  const lines = [`from ${version(before)} to ${version(after)}`];
  for (const kind of ["function", "table", "view"] as const) {
    const [old, now] = [publicNames(before, kind), publicNames(after, kind)];
    const added = now.filter((name) => !old.includes(name));
    const removed = old.filter((name) => !now.includes(name));
    if (added.length > 0) lines.push(`new ${kind}s: ${added.join(", ")}`);
    if (removed.length > 0) lines.push(`removed ${kind}s: ${removed.join(", ")}`);
  }
  return lines;
}

function isOurs(migration: Migration, name: MigrationName): boolean {
  return migration.name.replace(/^\d+_/, "") === `${name}.sql`;
}

/** A checkout on Windows may have changed the line ends. */
async function textOf(file: string): Promise<string> {
  return (await readFile(file, "utf8")).replaceAll("\r\n", "\n");
}

/** The files that push applies, in its order; a folder that does not exist has none. */
export async function migrationsIn(folder: string): Promise<Migration[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  const migrations: Migration[] = [];
  for (const name of names.filter((each) => /^\d+_.*\.sql$/.test(each))) {
    migrations.push({ name, version: Number.parseInt(name, 10), text: await textOf(join(folder, name)) });
  }
  return migrations.sort((one, other) => one.version - other.version);
}

async function writeConfig(projectDir: string, source: string): Promise<boolean> {
  const id = basename(resolve(projectDir)).replace(/[^A-Za-z0-9_-]/g, "-") || "work-claims";
  const template = await readFile(join(source, "config.toml"), "utf8");
  // The entries of functions come with the functions.
  const named = template.replace(/^project_id = .*$/m, `project_id = "${id}"`);
  const text = `${named.replace(/^\[functions\.[^[]*/gm, "").trimEnd()}\n`;
  try {
    await writeFile(join(projectDir, "supabase", "config.toml"), text, { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}
