// The hosted service's own provider for the AI SDK as published, with only base URL and key set.

import assert from "node:assert/strict"
import { test } from "node:test"
import { createRunpod } from "@runpod/ai-sdk-provider"
import { experimental_generateImage as generateImage } from "ai"

const { DRAWING, KEY } = process.env
const baseURL = `${DRAWING}/v2/stable-diffusion-v1`
const runpod = createRunpod({ apiKey: KEY, baseURL })
const QUICK = { num_inference_steps: 2 }

const sizeOf = bytes => [Buffer.from(bytes).readUInt32BE(16), Buffer.from(bytes).readUInt32BE(20)]
const draw = async (id, options = {}) => {
  const { image } = await generateImage({
    model: runpod.imageModel(id), prompt: "a red fox", seed: 7, ...options,
    providerOptions: { runpod: { ...QUICK, ...options.providerOptions?.runpod } },
  })
  assert.equal(Buffer.from(image.uint8Array).subarray(1, 4).toString(), "PNG")
  return image
}

test("a picture of 512 × 512, and the same again by its seed", async () => {
  const [one, again] = [await draw("some/model", { size: "512x512" }), await draw("some/model", { size: "512x512" })]
  assert.deepEqual(sizeOf(one.uint8Array), [512, 512])
  assert.equal(one.base64, again.base64)
})

test("the provider's default size, which lies beyond our limit", async () => {
  assert.deepEqual(sizeOf((await draw("some/model")).uint8Array), [1328, 1328])
  assert.deepEqual(sizeOf((await draw("some/model", { aspectRatio: "3:4" })).uint8Array), [1140, 1472])
})

test("a model with flux in its name sends other fields", async () => {
  assert.deepEqual(sizeOf((await draw("black-forest-labs/flux-1-schnell", { size: "512x512" })).uint8Array), [512, 512])
})

test("a picture to start from, and the provider's options", async () => {
  const first = await draw("some/model", { size: "512x512" })
  const changed = await draw("some/model", {
    size: "512x512", prompt: { text: "a blue fox", images: [first.uint8Array] },
    providerOptions: { runpod: { negative_prompt: "rain", enable_safety_checker: false } },
  })
  assert.notEqual(first.base64, changed.base64)
})

test("a refusal is an error with our sentence", async () => {
  await assert.rejects(draw("some/model", { size: "512x512", providerOptions: { runpod: { num_inference_steps: 0 } } }), error =>
    JSON.stringify([error.message, error.responseBody, error.cause?.responseBody]).includes("num_inference_steps"))
})
