// OpenAI's JavaScript library and the AI SDK as published, with only base URL and key set.

import assert from "node:assert/strict"
import { test } from "node:test"
import { createOpenAI } from "@ai-sdk/openai"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import { experimental_generateImage as generateImage } from "ai"
import OpenAI, { toFile } from "openai"

const { DRAWING, KEY } = process.env
const baseURL = `${DRAWING}/v1`
const client = new OpenAI({ baseURL, apiKey: KEY })
const QUICK = { prompt: "a red fox", size: "128x128", steps: 2, seed: 7 }

const isPng = bytes => assert.equal(Buffer.from(bytes).subarray(1, 4).toString(), "PNG")
const sizeOf = bytes => [Buffer.from(bytes).readUInt32BE(16), Buffer.from(bytes).readUInt32BE(20)]
const decoded = base64 => Buffer.from(base64, "base64")

async function photo() {
  const { data } = await client.images.generate({ ...QUICK, model: "gpt-image-1" })
  return decoded(data[0].b64_json)
}

test("openai: models are listed", async () => {
  const { data } = await client.models.list()
  assert.deepEqual(data.map(({ id }) => id), ["stable-diffusion-v1"])
})

test("openai: pictures come in base64 and by url", async () => {
  const { data } = await client.images.generate({ ...QUICK, model: "gpt-image-1", n: 2 })
  assert.deepEqual(data.map(item => Object.keys(item)), [["b64_json"], ["b64_json"]])
  for (const { b64_json } of data) assert.deepEqual(sizeOf(decoded(b64_json)), [128, 128])
  const { data: [{ url }] } = await client.images.generate({ ...QUICK, response_format: "url" })
  isPng(await (await fetch(url)).arrayBuffer())
})

test("openai: an edit takes one picture and several", async () => {
  const file = await toFile(await photo(), "photo.png", { type: "image/png" })
  const edit = image => client.images.edit({ image, prompt: "a blue fox", model: "gpt-image-1", seed: 7, steps: 2 })
  const [one, several] = [await edit(file), await edit([file, file])]
  assert.equal(one.data[0].b64_json, several.data[0].b64_json)
  assert.deepEqual(sizeOf(decoded(one.data[0].b64_json)), [128, 128])
})

test("openai: a stream ends with the picture", async () => {
  const stream = await client.images.generate({ ...QUICK, model: "gpt-image-1", stream: true, partial_images: 1 })
  let last
  for await (const event of stream) last = event
  assert.equal(last.type, "image_generation.completed")
  isPng(decoded(last.b64_json))
})

test("openai: errors are typed and have their sentence", async () => {
  await assert.rejects(client.images.generate({ ...QUICK, n: 11 }), error =>
    error instanceof OpenAI.BadRequestError && error.param === "n" && error.message.includes("from 1 to 10"))
  const stranger = new OpenAI({ baseURL, apiKey: "wrong" })
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError)
  await assert.rejects(client.models.retrieve("flux"), OpenAI.NotFoundError)
})

test("AI SDK: three pictures of a model that it knows and of one that it does not", async () => {
  const openai = createOpenAI({ baseURL, apiKey: KEY })
  for (const id of ["gpt-image-1", "stable-diffusion-v1"]) {
    const { images } = await generateImage({
      model: openai.image(id), prompt: "a red fox", n: 3, size: "256x256", providerOptions: { openai: { quality: "low" } },
    })
    assert.equal(images.length, 3)
    for (const { uint8Array } of images) assert.deepEqual(sizeOf(uint8Array), [256, 256])
  }
})

test("AI SDK: an edit with a mask", async () => {
  const openai = createOpenAI({ baseURL, apiKey: KEY })
  const picture = await photo()
  const { image } = await generateImage({
    model: openai.image("gpt-image-1"), prompt: { text: "a blue fox", images: [picture], mask: picture },
  })
  isPng(image.uint8Array)
})

test("AI SDK, compatible provider: our own fields are passed on", async () => {
  const provider = createOpenAICompatible({ name: "stablehand", baseURL, apiKey: KEY })
  const draw = seed => generateImage({
    model: provider.imageModel("stable-diffusion-v1"), prompt: "a red fox", size: "128x128",
    providerOptions: { stablehand: { steps: 2, seed } },
  })
  const [one, again, other] = [await draw(7), await draw(7), await draw(8)]
  assert.equal(one.image.base64, again.image.base64)
  assert.notEqual(one.image.base64, other.image.base64)
})
