import { defineConfig } from "vitest/config";

// Vendored files are loaded as they are: their source maps are not in the package.
export default defineConfig({ test: { server: { deps: { external: [/\/vendor\//] } } } });
