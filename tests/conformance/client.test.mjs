// The project's own JavaScript client against the server at UNBROKEN_URL, as an application uses it.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client";
import { describe, expect, test } from "vitest";

const baseUrl = process.env.UNBROKEN_URL;
const COUNT = 900;
let streams = 0;

async function created(options = {}) {
  const url = `${baseUrl}/v1/stream/client/${Date.now()}-${(streams += 1)}`;
  return await DurableStream.create({ url, contentType: "application/json", ...options });
}

// Everything behind `offset` until the stream ends or `wanted` says that it is enough, and the offset behind it.
async function follow(url, { live, offset = "-1", wanted = () => false }) {
  const items = [];
  const response = await stream({ url, live, offset, json: true });
  const last = await new Promise((resolve) => {
    response.subscribeJson((batch) => {
      items.push(...batch.items);
      if (batch.streamClosed || wanted(items)) resolve(batch.offset);
    });
  });
  response.cancel();
  return { items, offset: last };
}

async function contents(handle) {
  return await (await stream({ url: handle.url, live: false, json: true })).json();
}

describe.each(["sse", "long-poll"])("read with %s", (live) => {
  test("a producer's messages arrive once each and in order, up to the end", async () => {
    const handle = await created();
    const reading = follow(handle.url, { live });
    const failures = [];
    const producer = new IdempotentProducer(handle, "writer", { onError: (error) => failures.push(error), maxBatchBytes: 512 });
    for (let number = 0; number < COUNT; number += 1) producer.append(JSON.stringify({ number }));
    await producer.flush();
    await producer.close();
    const { items } = await reading;
    expect(failures).toEqual([]);
    expect(items.map((item) => item.number)).toEqual([...Array(COUNT).keys()]);
  });

  test("a reader goes on where another one stopped", async () => {
    const handle = await created();
    for (let number = 0; number < 10; number += 1) await handle.append(JSON.stringify(number));
    const first = await follow(handle.url, { live, wanted: (items) => items.length >= 10 });
    for (let number = 10; number < 20; number += 1) await handle.append(JSON.stringify(number));
    await handle.close();
    const second = await follow(handle.url, { live, offset: first.offset });
    expect([...first.items, ...second.items]).toEqual([...Array(20).keys()]);
  });
});

test("a restarted producer takes over from the one before it", async () => {
  const handle = await created();
  const old = new IdempotentProducer(handle, "writer", { autoClaim: true });
  old.append(JSON.stringify("old"));
  await old.flush();
  const restarted = new IdempotentProducer(handle, "writer", { epoch: 1 });
  restarted.append(JSON.stringify("new"));
  await restarted.close();
  expect(await contents(handle)).toEqual(["old", "new"]);
});

test("an ended stream takes nothing more", async () => {
  const handle = await created();
  await handle.close({ body: JSON.stringify("last") });
  await expect(handle.append(JSON.stringify("more"))).rejects.toMatchObject({ status: 409 });
  expect(await contents(handle)).toEqual(["last"]);
});
