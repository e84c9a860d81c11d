// Runs the public conformance suite of Durable Streams against the server at UNBROKEN_URL. The suite's own command line
// finds no test file, so it is called from this one.
import { runConformanceTests } from "@durable-streams/server-conformance-tests";

const baseUrl = process.env.UNBROKEN_URL;
if (!baseUrl) throw new Error("UNBROKEN_URL names the server to test");

runConformanceTests({ baseUrl, subscriptions: false, longPollTimeoutMs: 20_000 });
