// OpenAI's JavaScript library and the AI SDK as published, with only base URL and key set.

import assert from "node:assert/strict"
import { test } from "node:test"
import zlib from "node:zlib"
import { createOpenAI } from "@ai-sdk/openai"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import { experimental_generateImage as generateImage } from "ai"
import OpenAI, { toFile } from "openai"

const { DRAWING, WAITING, KEY } = process.env
const baseURL = `${DRAWING}/v1`
const client = new OpenAI({ baseURL, apiKey: KEY })
const QUICK = { prompt: "a red fox", size: "128x128", steps: 2, seed: 7 }

const isPng = bytes => assert.equal(Buffer.from(bytes).subarray(1, 4).toString(), "PNG")
const sizeOf = bytes => [Buffer.from(bytes).readUInt32BE(16), Buffer.from(bytes).readUInt32BE(20)]
const decoded = base64 => Buffer.from(base64, "base64")

const SIDE = 128

// A PNG file's checksum: CRC-32.
const checksum = bytes => ~bytes.reduce((sum, byte) => {
  sum ^= byte
  for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0)
  return sum
}, -1)

// A square PNG file; `pixel` gives red, green, blue and opacity at x, y.
function png(pixel) {
  const line = y => Buffer.from([0, ...Array.from({ length: SIDE }, (_, x) => pixel(x, y)).flat()])
  const chunk = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind), data])
    const word = value => { const bytes = Buffer.alloc(4); bytes.writeUInt32BE(value >>> 0); return bytes }
    return Buffer.concat([word(data.length), body, word(checksum(body))])
  }
  const head = Buffer.from([0, 0, 0, SIDE, 0, 0, 0, SIDE, 8, 6, 0, 0, 0])
  const rows = zlib.deflateSync(Buffer.concat(Array.from({ length: SIDE }, (_, y) => line(y))))
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), chunk("IHDR", head), chunk("IDAT", rows), chunk("IEND", Buffer.alloc(0)),
  ])
}

// How far a square RGB file is from the photo on average, in its left and in its right half.
function distances(bytes) {
  const file = Buffer.from(bytes)
  isPng(file)
  assert.deepEqual([...sizeOf(file), file[24], file[25]], [SIDE, SIDE, 8, 2])
  const parts = []
  for (let at = 8; at < file.length; at += 12 + file.readUInt32BE(at)) {
    if (file.subarray(at + 4, at + 8).toString() === "IDAT") parts.push(file.subarray(at + 8, at + 8 + file.readUInt32BE(at)))
  }
  const raw = zlib.inflateSync(Buffer.concat(parts))
  const width = SIDE * 3
  const halves = [0, 0]
  let above = Buffer.alloc(width)
  for (let y = 0; y < SIDE; y++) {
    const filter = raw[y * (width + 1)]
    const row = Buffer.from(raw.subarray(y * (width + 1) + 1, (y + 1) * (width + 1)))
    for (let i = 0; i < width; i++) {
      const [left, up, corner] = [i < 3 ? 0 : row[i - 3], above[i], i < 3 ? 0 : above[i - 3]]
      const [toLeft, toUp, toCorner] = [left, up, corner].map(value => Math.abs(left + up - corner - value))
      const paeth = toLeft <= toUp && toLeft <= toCorner ? left : toUp <= toCorner ? up : corner
      row[i] += [0, left, up, (left + up) >> 1, paeth][filter]
      const x = Math.floor(i / 3)
      halves[x < SIDE / 2 ? 0 : 1] += Math.abs(row[i] - pixelOfPhoto(x, y)[i % 3])
    }
    above = row
  }
  return halves.map(sum => sum / (width * SIDE / 2))
}

// Each half is much closer to the photo where the mask keeps it than where the mask repaints it.
async function assertMasksCount(edit) {
  const left = distances(await edit(mask(x => x < SIDE / 2)))
  const right = distances(await edit(mask(x => x >= SIDE / 2)))
  assert.ok(2 * right[0] < left[0] && 2 * left[1] < right[1], `${left} ${right}`)
}

const pixelOfPhoto = (x, y) => [x * 2, y * 2, 90, 255]
const PHOTO = png(pixelOfPhoto)
const mask = isTransparent => png(x => [0, 0, 0, isTransparent(x) ? 0 : 255])
const file = bytes => toFile(bytes, "picture.png", { type: "image/png" })

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
  const photo = await file(PHOTO)
  const edit = image => client.images.edit({ image, prompt: "a blue fox", model: "gpt-image-1", seed: 7, steps: 2 })
  const [one, several] = [await edit(photo), await edit([photo, photo])]
  assert.equal(one.data[0].b64_json, several.data[0].b64_json)
  assert.deepEqual(sizeOf(decoded(one.data[0].b64_json)), [128, 128])
})

test("openai: an edit with a mask repaints what is transparent there", async () => {
  await assertMasksCount(async mask => {
    const { data } = await client.images.edit({
      image: await file(PHOTO), mask: await file(mask), prompt: "a blue fox", model: "gpt-image-1", seed: 7, steps: 4,
    })
    return decoded(data[0].b64_json)
  })
})

test("openai: the stream of an edit brings the picture", async () => {
  const stream = await client.images.edit({
    image: await file(PHOTO), prompt: "a blue fox", model: "gpt-image-1", stream: true, steps: 2,
  })
  const events = []
  for await (const event of stream) events.push(event)
  assert.deepEqual(events.map(({ type }) => type), ["image_edit.completed"])
  assert.deepEqual(sizeOf(decoded(events[0].b64_json)), [SIDE, SIDE])
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

async function native(path, body) {
  const answer = await fetch(`${WAITING}/v2/stable-diffusion-v1/${path}`, {
    method: body ? "POST" : "GET", headers: { Authorization: KEY }, body: body && JSON.stringify(body),
  })
  return answer.json()
}

test("openai: a full queue is a rate limit error", async () => {
  const jobs = await Promise.all([1, 2, 3].map(() => native("run", { input: { prompt: "a" } })))
  const waiting = new OpenAI({ baseURL: `${WAITING}/v1`, apiKey: KEY, maxRetries: 0 })
  await assert.rejects(waiting.images.generate({ prompt: "a red fox" }), error =>
    error instanceof OpenAI.RateLimitError && error.code === "rate_limit_exceeded" && error.message.includes("queue is full"))
  for (const { id } of jobs) await native(`cancel/${id}`, {})
})

test("openai: a job that fails is not sent again", async () => {
  let sent = 0
  const counting = new OpenAI({ baseURL, apiKey: KEY, fetch: (...request) => { sent++; return fetch(...request) } })
  // Its picture cannot be fetched: the address is not a public one.
  const body = { prompt: "a", images: ["http://127.0.0.1/none.png"], size: "128x128", steps: 2 }
  await assert.rejects(counting.post("/images/edits", { body }), error =>
    error instanceof OpenAI.InternalServerError && error.code === "job_failed" && error.headers.get("x-should-retry") === "false")
  assert.equal(sent, 1)
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
  await assertMasksCount(async mask => {
    const { image } = await generateImage({
      model: openai.image("gpt-image-1"), prompt: { text: "a blue fox", images: [PHOTO], mask },
    })
    return image.uint8Array
  })
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

test("AI SDK, compatible provider: an edit with a mask", async () => {
  const provider = createOpenAICompatible({ name: "stablehand", baseURL, apiKey: KEY })
  await assertMasksCount(async mask => {
    const { image } = await generateImage({
      model: provider.imageModel("stable-diffusion-v1"),
      prompt: { text: "a blue fox", images: [PHOTO], mask },
      providerOptions: { stablehand: { steps: 4, seed: 7 } },
    })
    return image.uint8Array
  })
})
