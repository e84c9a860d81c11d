// A yardstick of `unbroken bench`: streams relayed from memory by Node and the `ws` package, nothing stored.
//
// Usage: node node_ws.js PORT FOLDER_OF_WS plain|corked
// /produce/S takes messages and acknowledges each; /view/S gets them numbered, as one JSON text frame each; GET /sse/S the
// same as server-sent events; /replay/COUNT/BYTES sends COUNT frames of BYTES from memory; /idle does nothing.
// `plain` writes as the documentation shows; `corked` gathers what one turn of the event loop writes to a socket.

"use strict";

const http = require("node:http");
const path = require("node:path");

const [port, folder, style] = process.argv.slice(2);
const { WebSocketServer } = require(path.join(folder, "node_modules", "ws"));
const streams = new Map();
const corked = new Set();

function stream(name) {
  let found = streams.get(name);
  if (found === undefined) {
    found = { head: 0, viewers: new Set(), responses: new Set() };
    streams.set(name, found);
  }
  return found;
}

function uncork() {
  for (const socket of corked) socket.uncork();
  corked.clear();
}

function gather(socket) {
  if (corked.has(socket)) return;
  if (corked.size === 0) setImmediate(uncork);
  corked.add(socket);
  socket.cork();
}

function send(client, text) {
  if (style === "corked") gather(client._socket);
  client.send(text);
}

function relay(name, producer, data) {
  const target = stream(name);
  target.head += 1;
  const text = JSON.stringify({ seq: target.head, text: data.toString() });
  for (const viewer of target.viewers) send(viewer, text);
  if (target.responses.size > 0) {
    const event = `id: ${target.head}\ndata: ${text}\n\n`;
    for (const response of target.responses) response.write(event);
  }
  send(producer, JSON.stringify({ ack: target.head }));
}

function replay(client, count, bytes) {
  const block = Buffer.alloc(bytes, "x");
  block.write("@@#0000:0000000001:0000000000000000:");
  let left = count;
  const next = () => {
    if (left > 0) {
      left -= 1;
      client.send(block, { binary: false }, next);
    }
  };
  for (let i = 0; i < 16; i++) next();
}

const server = http.createServer((request, response) => {
  const name = request.url.split("/")[2];
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  response.write(": ready\n\n");
  const target = stream(name);
  target.responses.add(response);
  response.on("close", () => target.responses.delete(response));
});

new WebSocketServer({ server, perMessageDeflate: false }).on("connection", (client, request) => {
  const [, role, name, bytes] = request.url.split("/");
  if (role === "produce") client.on("message", (data) => relay(name, client, data));
  if (role === "view") {
    const { viewers } = stream(name);
    viewers.add(client);
    client.on("close", () => viewers.delete(client));
  }
  client.send('{"ready":true}');
  if (role === "replay") replay(client, Number(name), Number(bytes));
});

server.listen(Number(port), "127.0.0.1", () => console.log("listening"));
