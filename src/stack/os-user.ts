import { execFileSync, spawnSync } from "node:child_process";

/** The numbers a child process runs under; undefined means the same user as this process. */
export type OsUser = { uid: number; gid: number } | undefined;

/** Postgres refuses to run as root, so root lends it an unprivileged user that the system already has. */
export function serverUser(): OsUser {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ["postgres", "_postgres", "nobody", "daemon"]) {
    const uid = idOf("-u", name);
    const gid = idOf("-g", name);
    if (uid !== undefined && gid !== undefined && uid > 0) return { uid, gid };
  }
  throw new Error(
    "Postgres does not run as root and this system has no user postgres or nobody; add one or start as an ordinary user",
  );
}

/** Whether that user can enter a folder: every folder above it counts, and only the kernel knows all its rules. */
export function canEnter(folder: string, user: OsUser): boolean {
  return spawnSync("/bin/sh", ["-c", 'cd "$1"', "sh", folder], { ...user, cwd: "/", stdio: "ignore" }).status === 0;
}

/** Whether that user can run a file. */
export function canRun(file: string, user: OsUser): boolean {
  return spawnSync(file, ["--version"], { ...user, cwd: "/", stdio: "ignore" }).status === 0;
}

function idOf(flag: "-u" | "-g", name: string): number | undefined {
  try {
    return Number.parseInt(
      execFileSync("id", [flag, name], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }),
      10,
    );
  } catch {
    return undefined;
  }
}
