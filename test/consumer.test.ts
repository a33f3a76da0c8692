import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../src/stack/package-root.ts";

const program = `
import type * as everything from "work-claims";
import type * as worker from "work-claims/worker";
import { createWorkClient, defineWork, type Requirement } from "work-claims";
import { claims, work } from "work-claims/worker";
import { z } from "zod";
export type All = [typeof everything, typeof worker];

const client = createWorkClient({ url: "http://127.0.0.1", key: "k" });
const embed = defineWork({
  name: "embed",
  payload: z.object({ text: z.string(), pages: z.number().default(1) }),
  result: z.object({ on: z.string().transform((text) => new Date(text)) }),
});
export const id: Promise<string> = client.enqueue(embed, { text: "a" });
export const many: Promise<number> = client.enqueueMany(embed, [{ text: "a", pages: 2 }]);
export const on: Promise<Date> = client.wait(embed, "id").then((result) => result.on);
export const run = () => work({ embed: embed.handler(({ payload }) => ({ on: payload.text + payload.pages.toFixed() })) });

export async function loops(files: { name: string }[]): Promise<void> {
  for await (const claim of claims(embed)) {
    claim.close({ on: claim.payload.text + claim.item.pages.toFixed() });
    // @ts-expect-error A result has a text.
    claim.close({ on: new Date() });
    // @ts-expect-error
    await claim.run(() => ({ on: 7 }));
  }
  const list = { key: (file: { name: string }) => file.name, payload: (file: { name: string }) => ({ text: file.name }) };
  for await (const { item, payload, run } of claims({ key: "k" }, embed, { over: files, ...list })) {
    const result: { on: string } | undefined = await run(() => ({ on: item.name + payload.pages.toFixed() }));
    console.log(result);
  }
  for await (const claim of claims("render", { over: files, key: (file) => file.name, each: (file) => ({ needs: [file.name] }) })) {
    claim.close(claim.item.name.length);
  }
  for await (const claim of claims<{ n: number }>(["a", "b"], { maxClaims: 1 })) claim.close(claim.item.n.toFixed());
  // @ts-expect-error A payload has a text.
  claims(embed, { over: files, key: (file) => file.name, payload: (file) => ({ txt: file.name }) });
  // @ts-expect-error The key of a list says what dedupeKey would.
  claims("render", { over: files, each: () => ({ dedupeKey: "a" }) });
  // @ts-expect-error A list has one work type.
  claims(["a", "b"], { over: files });
}

// @ts-expect-error A payload has a text.
client.enqueue(embed, { pages: 1 });
// @ts-expect-error
client.enqueueMany(embed, [{ text: 7 }]);
// @ts-expect-error A result has a text, from which the schema makes a date.
embed.handler(() => ({ on: new Date() }));
// @ts-expect-error A handler gets a text.
embed.handler(({ payload }) => ({ on: payload.text.getTime() }));

export const mixed: Requirement = {
  gpu: "a100",
  gpus: { ">": 2, "<=": 8 },
  services: ["comfyui", "a1111"],
  hardware: { "disk.gb": 20, any: [{ nvlink: true }, { scratch: { exists: true } }] },
  any: [{ region: "us" }, { region: { in: ["eu", "uk"] }, not: { tier: "spot" } }],
};
const region = Math.random() > 0.5 ? "eu" : undefined;
export const spread: Requirement = { ...mixed, ...(region && { region }) };
const columns: { [name: string]: string | number } = { gpu: "a100", gpu_memory_gb: 20 };
const needs: { gpu: string; memory_gb: number } = { gpu: "a100", memory_gb: 20 };
export const either: Requirement = { any: [columns, needs] };
export function depth({ any = [], all = [], not }: Requirement): number {
  return 1 + Math.max(0, ...[...any, ...all, ...(not ? [not] : [])].map(depth));
}

// @ts-expect-error A null asks for nothing that could be compared.
export const none: Requirement = { gpu: null };
// @ts-expect-error JSON leaves an undefined member out, and everybody would meet the rest.
export const absent: Requirement = { gpu: undefined };
// @ts-expect-error
export const noList: Requirement = { any: { region: "us" } };
// @ts-expect-error
export const noObject: Requirement = { not: "spot" };
`;

test.each(["nodenext", "bundler"])(
  "a strict program that checks libraries compiles with our types, as %s finds them",
  (resolution) => {
    const folder = mkdtempSync(join(tmpdir(), "work-claims-consumer-"));
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(packageRoot(), join(folder, "node_modules", "work-claims"), "dir");
    symlinkSync(join(packageRoot(), "node_modules", "zod"), join(folder, "node_modules", "zod"), "dir");
    writeFileSync(join(folder, "package.json"), '{"type": "module"}');
    writeFileSync(join(folder, "consumer.ts"), program);
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          ...{ strict: true, skipLibCheck: false, noEmit: true, target: "es2022", types: [] },
          ...{ module: resolution === "nodenext" ? "nodenext" : "esnext", moduleResolution: resolution },
        },
      }),
    );
    const compiler = join(packageRoot(), "node_modules", "typescript", "bin", "tsc");
    const { status, stdout, stderr } = spawnSync(process.execPath, [compiler, "-p", folder], { encoding: "utf8" });
    rmSync(folder, { recursive: true });
    expect(stdout + stderr).toBe("");
    expect(status).toBe(0);
  },
);
