import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { packageRoot } from "./package-root.ts";

/**
 * Putting our migrations into a project. A file that is there is never written again: `supabase db push` skips a version it has
 * applied, so a change travels as a new file after all others. A last line in each says which concept it holds and its digest,
 * so the newest file of a concept is today's, and an edit by hand shows.
 */
export type Addition = {
  /** Files written for the first time. */
  added: string[];
  /** Files written because the package's text of that concept is another than the project's newest. */
  updated: string[];
  unchanged: string[];
  /** Newest files of a concept that somebody edited and whose text the package has changed since; left alone without force. */
  conflicting: string[];
  /** Edited files whose text in the package is what it was; they are left alone. */
  edited: string[];
  config: boolean;
};

export type AddOptions = {
  force: boolean;
  /** The package's supabase folder, and the time a new file's version is made of. */
  source?: string;
  now?: Date;
};

type Migration = { name: string; version: string; concept: string; body: string };
/** A file of ours in a project, and whether it is as it was written. */
type Written = Migration & { digest: string; isEdited: boolean };

export async function addMigrations(projectDir: string, options: AddOptions): Promise<Addition> {
  const source = options.source ?? join(packageRoot(), "supabase");
  const folder = join(projectDir, "supabase", "migrations");
  await mkdir(folder, { recursive: true });
  const packaged = await migrationsIn(join(source, "migrations"));
  const present = await migrationsIn(folder);
  const written = present.flatMap(asWritten);
  const version = versionsAfter(present.at(-1)?.version ?? "", options.now ?? new Date());
  const addition: Addition = { added: [], updated: [], unchanged: [], conflicting: [], edited: [], config: false };

  const put = async (migration: Migration): Promise<string> => {
    const name = `${version(migration.version)}_${migration.concept}.sql`;
    await writeFile(join(folder, name), withMark(migration), { flag: "wx" });
    return name;
  };
  for (const migration of packaged) {
    const newest = written.filter((file) => file.concept === migration.concept).at(-1);
    if (!newest) addition.added.push(await put(migration));
    else if (newest.body === migration.body) addition.unchanged.push(newest.name);
    else if (!newest.isEdited || options.force) addition.updated.push(await put(migration));
    else if (newest.digest === digest(migration.body)) addition.edited.push(newest.name);
    else addition.conflicting.push(newest.name);
  }
  addition.config = await putConfig(projectDir, source);
  return addition;
}

/** Whether a project has our migrations already. */
export async function holdsMigrations(projectDir: string): Promise<boolean> {
  const present = await migrationsIn(join(projectDir, "supabase", "migrations"));
  return present.some((migration) => asWritten(migration).length > 0);
}

/** Drop files that a database has not taken, so that one which failed is made again from the package's text of today. */
export async function removeUnapplied(projectDir: string, applied: readonly string[]): Promise<void> {
  const folder = join(projectDir, "supabase", "migrations");
  for (const { name, version } of await migrationsIn(folder)) {
    if (!applied.includes(version)) await rm(join(folder, name));
  }
}

/** What push applies, in its order; a folder that is not there holds none. */
async function migrationsIn(folder: string): Promise<Migration[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  const migrations: Migration[] = [];
  for (const name of names) {
    const parts = /^(\d+)_(.*)\.sql$/.exec(name);
    if (!parts) continue;
    // A checkout may have turned the line ends.
    const body = (await readFile(join(folder, name), "utf8")).replaceAll("\r\n", "\n");
    migrations.push({ name, version: parts[1] ?? "", concept: parts[2] ?? "", body });
  }
  return migrations.sort((one, other) => compare(one.version, other.version));
}

const mark = /\n?-- work-claims: (\S+), sha256 ([0-9a-f]{64})\. work-claims init adds changes as new files\.(?:\n+|$)/;

function withMark(migration: Migration): string {
  const line = `-- work-claims: ${migration.concept}, sha256 ${digest(migration.body)}. work-claims init adds changes as new files.`;
  return `${migration.body}\n${line}\n`;
}

function asWritten(migration: Migration): Written[] {
  const found = mark.exec(migration.body);
  if (!found) return [];
  // What somebody wrote after the mark is an edit as one before it is.
  const after = migration.body.slice(found.index + found[0].length);
  const body = migration.body.slice(0, found.index) + (after === "" ? "" : `\n${after}`);
  const written = found[2] ?? "";
  return [{ ...migration, concept: found[1] ?? "", body, digest: written, isEdited: digest(body) !== written }];
}

/** The package's own version for a file where that is last in the project, else one made of the time: push wants each after the last. */
function versionsAfter(last: string, now: Date): (preferred: string) => string {
  let previous = last;
  const stamp = now.toISOString().replace(/\D/g, "").slice(0, 14);
  return (preferred) => {
    const candidates = [preferred, stamp, String(BigInt(previous || "0") + 1n).padStart(previous.length, "0")];
    previous = candidates.find((candidate) => compare(candidate, previous) > 0) ?? preferred;
    return previous;
  };
}

function compare(one: string, other: string): number {
  const difference = BigInt(one || "0") - BigInt(other || "0");
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

async function putConfig(projectDir: string, source: string): Promise<boolean> {
  const id = basename(resolve(projectDir)).replace(/[^A-Za-z0-9_-]/g, "-") || "work-claims";
  const template = await readFile(join(source, "config.toml"), "utf8");
  const text = template.replace(/^project_id = .*$/m, `project_id = "${id}"`);
  try {
    await writeFile(join(projectDir, "supabase", "config.toml"), text, { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}
