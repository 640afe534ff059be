// @huggingface/inference as published, with only URL and key set.

import assert from "node:assert/strict"
import { test } from "node:test"
import { InferenceClient } from "@huggingface/inference"

const { DRAWING, KEY } = process.env
const client = new InferenceClient(KEY, { endpointUrl: `${DRAWING}/huggingface` })
const QUICK = { num_inference_steps: 2, width: 128, height: 96, seed: 7 }

const bytesOf = async blob => Buffer.from(await blob.arrayBuffer())
const sizeOf = bytes => [bytes.readUInt32BE(16), bytes.readUInt32BE(20)]

test("text-to-image", async () => {
  const draw = () => client.textToImage({ inputs: "a red fox", parameters: { ...QUICK, negative_prompt: "rain" } }).then(bytesOf)
  const [one, again] = [await draw(), await draw()]
  assert.deepEqual(sizeOf(one), [128, 96])
  assert.deepEqual(one, again)
})

test("image-to-image", async () => {
  const first = await client.textToImage({ inputs: "a red fox", parameters: QUICK })
  const changed = await client.imageToImage({ inputs: first, parameters: { prompt: "a blue fox", num_inference_steps: 2 } })
  assert.deepEqual(sizeOf(await bytesOf(changed)), [128, 96])
})

test("a refusal has our sentence", async () => {
  await assert.rejects(client.textToImage({ inputs: "a red fox", parameters: { num_inference_steps: 0 } }), error =>
    JSON.stringify([error.message, error.httpResponse?.body]).includes("num_inference_steps does not meet the constraints"))
})
