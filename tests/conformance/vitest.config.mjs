import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["*.test.mjs"],
    reporters: ["default", ["json", { outputFile: process.env.UNBROKEN_REPORT }]],
    setupFiles: process.env.UNBROKEN_TOKEN ? ["./authorize.mjs"] : [],
  },
});
