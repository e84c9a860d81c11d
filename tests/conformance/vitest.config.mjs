import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // The suite's own 5 s are too short for its largest test (100,000 assertions) on a busy machine.
    testTimeout: 60_000,
    include: ["*.test.mjs"],
    reporters: ["default", ["json", { outputFile: process.env.UNBROKEN_REPORT }]],
    setupFiles: process.env.UNBROKEN_TOKEN ? ["./authorize.mjs"] : [],
  },
});
