import { defineConfig } from "vitest/config";

// vitest asks for a default export.
// biome-ignore lint/style/noDefaultExport: the tool's interface
export default defineConfig({
  cacheDir: "../node_modules/.vite",
  test: {
    root: import.meta.dirname,
    include: ["**/*.test.ts"],
    globalSetup: ["./support/servers.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Each worker is mostly waiting for Postgres: two of them keep two cores busy.
    maxWorkers: 2,
  },
});
