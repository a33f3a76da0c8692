import { defineConfig } from "vitest/config";

// vitest asks for a default export.
// biome-ignore lint/style/noDefaultExport: the tool's interface
export default defineConfig({
  cacheDir: "../node_modules/.vite",
  test: {
    root: import.meta.dirname,
    include: ["**/*.test.ts"],
    globalSetup: ["./support/servers.ts"],
    // For a slow machine: nothing takes so long where nothing hangs. A wait gives up first, and says what it last saw.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 60_000 } },
    // Each worker is mostly waiting for Postgres: two of them keep two cores busy.
    maxWorkers: 2,
  },
});
