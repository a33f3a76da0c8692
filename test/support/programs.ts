import { spawnSync } from "node:child_process";

/** Whether the machine has a program. A test that needs one is skipped, and says so, where it is missing. */
export function has(program: string): boolean {
  return spawnSync("which", [program], { stdio: "ignore" }).status === 0;
}
