import { expect, test } from "vitest";
import { isAlive, runDemo, workersOf } from "./support/demo-runs.ts";

test("the demo of matching shows the items of each worker, and why the rest is left", async () => {
  const { code, out } = await runDemo(["--matching"]);
  expect(out).toMatch(/^all-48 +services:\[simulation, comfyui, a1111\], .*after 2 s what needs no gpu_memory_gb$/m);
  expect(out).toMatch(/^ +4 {2}film scene +globex +gpu_memory_gb:40 +film$/m);
  expect(out).toMatch(/^↑ workflow previews has priority 20 from here on$/m);
  expect(out).toMatch(/^all-48 +4 × film scene, /m);
  expect(out).toMatch(/^initech-8 +4 × initech's picture$/m);
  expect(out).toMatch(
    /^ {2}poster in 8k: generate is ready since \d+ s; it is the head of its lane\. None of the 5 live workers that do generate can run it\. .*It needs gpu_memory_gb >= 80; closest live worker all-48 has 48; /m,
  );
  expect(out).toMatch(/^ {2}voice: .*It needs services = speech; /m);
  expect(code).toBe(0);
  expect(workersOf(out)).toHaveLength(5);
  expect(workersOf(out).filter(isAlive)).toEqual([]);
}, 240_000);
