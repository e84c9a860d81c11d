/**
 * Owns the proof over real sockets: a WebSocket server that cuts, and a network that lets only plain HTTP through.
 *
 * Run by vitest against small servers of its own; the product's server is met in tests/e2e.
 */

import { createServer } from "node:http";
import { afterEach, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";

import { connect } from "../../src/unbroken/web/client/unbroken.js";
import { messages, subscribed, view } from "./fakes.js";

/** @type {(() => void)[]} */
let undo = [];
afterEach(() => {
  for (const step of undo.reverse()) step();
  undo = [];
});

/** @param {import("node:http").RequestListener} listener @returns {Promise<{server: import("node:http").Server, url: string}>} */
async function serve(listener) {
  const server = createServer(listener);
  await /** @type {Promise<void>} */ (new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve())));
  undo.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return { server, url: `http://127.0.0.1:${port}/mounted/` };
}

test("a WebSocket cut in the middle, again and again, loses and doubles nothing", async () => {
  const total = 60;
  const { server, url } = await serve((_request, response) => response.writeHead(404).end());
  const sockets = new WebSocketServer({ server, path: "/mounted/v1/ws", handleProtocols: () => "unbroken.v1" });
  let connections = 0;
  sockets.on("connection", (socket) => {
    connections += 1;
    socket.send(JSON.stringify({ type: "hello", protocol: "unbroken.v1", silence_seconds: 40 }));
    socket.on("message", (data) => {
      const frame = JSON.parse(String(data));
      if (frame.type !== "subscribe") return;
      const seq = frame.after === "start" ? 0 : Number(frame.after.split(":")[1]);
      socket.send(JSON.stringify(subscribed(frame.id, "a", `7:${seq}`)));
      const count = Math.min(12, total - seq);
      // The batch begins with up to three messages that the client has.
      socket.send(JSON.stringify(messages("a", Math.max(seq - 2, 1), count + Math.min(seq, 3))));
      if (seq + count < total) setTimeout(() => socket.terminate(), 5);
      else socket.send(JSON.stringify({ type: "state", stream: view("a", { head: total, state: "completed" }) }));
    });
  });
  const client = connect(url, { WebSocket: /** @type {any} */ (WebSocket), random: () => 0, fallback: false });
  undo.push(() => client.close());
  const got = [];
  for await (const message of client.follow("a")) got.push(message.text);
  expect(got).toEqual(Array.from({ length: total }, (_, index) => `m${index + 1}`));
  expect(connections).toBeGreaterThan(4);
});

test("where no WebSocket can be opened, the same stream comes over SSE", async () => {
  const total = 30;
  let cuts = 0;
  /** @type {string[]} */
  const asked = [];
  /** @type {string[]} */
  const appended = [];
  const { url } = await serve((request, response) => {
    const { pathname, searchParams } = new URL(String(request.url), "http://x");
    const json = (/** @type {unknown} */ body, status = 200) => response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
    if (pathname === "/mounted/v1/tickets") json({ ticket: "t", expires_in: 30 }, 201);
    else if (pathname === "/mounted/v1/streams") json({ streams: [], next: null });
    else if (pathname === "/mounted/v1/streams/a%20b/c") json(view("a b/c", { head: 5 }));
    else if (request.method === "POST") {
      request.on("data", (data) => appended.push(JSON.parse(data).messages[0].text));
      request.on("end", () => json({ first: 1, last: 1, head: 1, duplicate: false }));
    } else if (searchParams.get("live") === "sse") {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      asked.push(String(request.headers["last-event-id"]));
      let seq = Number(String(request.headers["last-event-id"]).split(":")[1]);
      const until = Math.min(seq + 10, total);
      response.write("retry: 1000\n\n: heartbeat\n\n");
      // the first response ends before the store is back: that the second says nothing of it means that it is
      if (seq === 0) response.write('event: notice\ndata: {"code":"degraded","message":"away"}\n\nevent: later\ndata: x\n\n');
      let text = "";
      while (seq < until) {
        seq += 1;
        text += `id: 7:${seq}\nevent: message\ndata: {"seq":${seq},"text":"m${seq}"}\n\n`;
      }
      if (seq === total) {
        response.end(`${text}event: state\ndata: ${JSON.stringify(view("a b/c", { head: total, state: "failed" }))}\n\n`);
        return;
      }
      if (seq === 10) {
        response.end(text); // the server's own end after a while, no loss of connection
        return;
      }
      cuts += 1;
      response.write(`${text}id: 7:${seq + 1}\nevent: mess`, () => response.destroy());
    } else response.writeHead(404).end();
  });
  const client = connect(url, { WebSocket: /** @type {any} */ (WebSocket), random: () => 0 });
  undo.push(() => client.close());
  /** @type {string[]} */
  const notices = [];
  client.on("notice", (/** @type {{code: string, message: string}} */ notice) => notices.push(`${notice.code} ${notice.message}`));
  /** @type {string[]} */
  const got = [];
  const follow = client.follow("a b/c");
  for await (const message of follow) got.push(String(message.text));
  expect(got).toEqual(Array.from({ length: total }, (_, index) => `m${index + 1}`));
  expect((await follow.ended).state).toBe("failed");
  expect(cuts).toBe(1);
  expect(asked).toEqual(["7:0", "7:10", "7:20"]);
  expect(notices).toEqual(["degraded away", "recovered "]);
  expect(client.status.transport).toBe("sse");
  expect(await client.append("x", "hello")).toEqual({ first: 1, last: 1, duplicate: false });
  expect(appended).toEqual(["hello"]);
}, 20_000);
