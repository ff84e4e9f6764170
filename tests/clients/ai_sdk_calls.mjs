// What the AI SDK does against a gateway; prints one JSON object. node ai_sdk_calls.mjs URL PICTURE MASK
import fs from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";

const [url, picture, mask] = process.argv.slice(2);
let hits = 0;
const counting = (...args) => ((hits += 1), fetch(...args));
const ask = { baseURL: `${url}/v1`, apiKey: "none", fetch: counting };
const openai = createOpenAI(ask);
const compatible = createOpenAICompatible({ name: "mflux", ...ask });
const prompt = "an apple";
const read = (file) => new Uint8Array(fs.readFileSync(file));

async function sizes(call) {
  const { images } = await call;
  return images.map(({ uint8Array: raw }) => {
    const view = new DataView(raw.buffer, raw.byteOffset);
    return [view.getUint32(16), view.getUint32(20)];
  });
}

async function raised(call) {
  hits = 0;
  try {
    await call;
  } catch (error) {
    return [error.name, error.statusCode, hits];
  }
  return ["nothing", null, hits];
}

const edit = { prompt: { text: prompt, images: [read(picture)] } };
const masked = { prompt: { text: prompt, images: [read(picture)], mask: read(mask) } };
console.log(
  JSON.stringify({
    openai: {
      generate: await sizes(generateImage({ model: openai.image("shapes"), prompt, size: "64x96", n: 3 })),
      "gpt-image": await sizes(generateImage({ model: openai.image("gpt-image-1"), prompt, size: "64x96" })),
      edit: await sizes(generateImage({ model: openai.image("shapes"), ...edit })),
      "edit with a mask": await sizes(generateImage({ model: openai.image("shapes"), ...masked })),
      refused: await raised(generateImage({ model: openai.image("shapes"), prompt, size: "9x9" })),
    },
    compatible: {
      generate: await sizes(generateImage({ model: compatible.imageModel("shapes"), prompt, size: "64x96", n: 2 })),
      options: await sizes(
        generateImage({ model: compatible.imageModel("shapes"), prompt, providerOptions: { mflux: { seed: 7, size: "64x64" } } }),
      ),
      edit: await sizes(generateImage({ model: compatible.imageModel("shapes"), ...edit })),
      "edit with a mask": await sizes(generateImage({ model: compatible.imageModel("shapes"), ...masked })),
      refused: await raised(generateImage({ model: compatible.imageModel("shapes"), prompt, size: "9x9" })),
    },
  }),
);
