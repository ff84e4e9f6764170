// What openai for Node does against a gateway; prints one JSON object. node openai_calls.mjs URL PICTURE MASK
import fs from "node:fs";
import OpenAI, { toFile } from "openai";

const [url, picture, mask] = process.argv.slice(2);
let hits = 0;
const counting = (...args) => ((hits += 1), fetch(...args));
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", fetch: counting, timeout: 100_000 });
const apple = { prompt: "an apple" };

async function size(answer) {
  const row = (await answer).data[0];
  const raw = row.b64_json ? Buffer.from(row.b64_json, "base64") : Buffer.from(await (await fetch(row.url)).arrayBuffer());
  return [raw.readUInt32BE(16), raw.readUInt32BE(20)];
}

async function types(stream) {
  const seen = new Set();
  for await (const event of await stream) seen.add(event.type);
  return [...seen].sort();
}

async function raised(call) {
  hits = 0;
  try {
    await call();
  } catch (error) {
    return [error.constructor.name, error.param ?? null, hits];
  }
  return ["nothing", null, hits];
}

const images = client.images;
const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log(
  JSON.stringify({
    generate: await size(images.generate({ ...apple, size: "64x96", seed: 7, steps: 2 })),
    url: await size(images.generate({ ...apple, size: "64x96", response_format: "url" })),
    "edit of a stream": await size(images.edit({ ...apple, image: fs.createReadStream(picture) })),
    "edit with a mask": await size(
      images.edit({ ...apple, image: await toFile(fs.readFileSync(picture)), mask: await toFile(fs.readFileSync(mask), "m.png") }),
    ),
    "edit of a list": await size(images.edit({ ...apple, image: [await toFile(fs.readFileSync(picture), "a.png")] })),
    variation: await size(images.createVariation({ ...apple, image: fs.createReadStream(picture) })),
    stream: await types(images.generate({ ...apple, size: "64x96", stream: true, partial_images: 2 })),
    "stream of an edit": await types(
      images.edit({ ...apple, image: await toFile(fs.readFileSync(picture)), stream: true, partial_images: 2 }),
    ),
    models: models.includes("shapes"),
    slash: (await client.models.retrieve("org/m:4bit")).id,
    "bad size": await raised(() => images.generate({ ...apple, size: "9x9" })),
    "no model": await raised(() => images.generate({ ...apple, model: "none-such" })),
    "bad stream": await raised(() => images.generate({ ...apple, n: 11, stream: true })),
  }),
);
