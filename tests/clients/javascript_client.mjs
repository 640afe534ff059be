// The published JavaScript client, with only its base URL and key changed. Its own time-outs (3 s for run, status,
// cancel, health and purge) stay.

import assert from "node:assert/strict"
import { test } from "node:test"
import runpodSdk from "runpod-sdk"

const { DRAWING, WAITING, KEY } = process.env
const ENDPOINT = "stable-diffusion-v1"
const QUICK = { prompt: "a red fox", num_inference_steps: 2, width: 128, height: 128, seed: 7 }
const LONG = { ...QUICK, num_inference_steps: 500, num_outputs: 10 }

const endpointOf = (base, key = KEY) => runpodSdk(key, { baseUrl: `${base}/v2` }).endpoint(ENDPOINT)
const drawing = endpointOf(DRAWING)
const waiting = endpointOf(WAITING)

async function assertPictures(output, seeds) {
  assert.deepEqual(output.map(({ seed }) => seed), seeds)
  for (const { image } of output) {
    const answer = await fetch(image)
    assert.equal(answer.headers.get("content-type"), "image/png")
    const bytes = Buffer.from(await answer.arrayBuffer())
    assert.equal(bytes.subarray(1, 4).toString(), "PNG")
  }
}

async function ended(id) {
  for (;;) {
    const job = await drawing.statusSync(id)
    if (job.completed) return job
  }
}

test("a job is run, watched and its picture fetched", async () => {
  const { id, status } = await drawing.run({ input: QUICK })
  assert.equal(status, "IN_QUEUE")
  const job = await ended(id)
  assert.equal(job.succeeded, true)
  assert.deepEqual(job.input, QUICK)
  assert.ok(Number.isInteger(job.delayTime) && Number.isInteger(job.executionTime))
  await assertPictures(job.output, [7])
  assert.equal((await drawing.status(id)).status, "COMPLETED")
})

test("runSync answers the pictures", async () => {
  const job = await drawing.runSync({ input: { ...QUICK, num_outputs: 2 } })
  assert.equal(job.succeeded, true)
  assert.match(job.id, /^sync-/)
  await assertPictures(job.output, [7, 8])
})

test("a stream brings steps, then the pictures, and ends", async () => {
  const { id } = await drawing.run({ input: { ...LONG, num_outputs: 2 } })
  const outputs = []
  for await (const { output } of drawing.stream(id)) outputs.push(output)
  const steps = outputs.slice(0, -2)
  assert.ok(steps.length > 0 && steps.every(({ step, steps }) => step <= steps && steps === 500))
  await assertPictures(outputs.slice(-2), [7, 8])
})

test("the policy of the client's own README is taken", async () => {
  const { id } = await drawing.run({
    input: QUICK,
    policy: { executionTimeout: 3000, ttl: 86400000, lowPriority: false },
  })
  assert.equal((await ended(id)).status, "COMPLETED")
})

test("run, status, cancel and health answer within 3 s while a job is drawn", async () => {
  const { id } = await drawing.run({ input: LONG })
  let job
  do job = await drawing.status(id)
  while (job.status === "IN_QUEUE")
  assert.equal(job.status, "IN_PROGRESS")
  const other = await drawing.run({ input: LONG })
  const health = await drawing.health()
  assert.deepEqual(Object.keys(health.jobs).sort(), ["completed", "failed", "inProgress", "inQueue", "retried"])
  assert.deepEqual(Object.keys(health.workers).sort(), ["idle", "initializing", "ready", "running", "throttled"])
  for (const name of [other.id, id]) {
    assert.deepEqual(await drawing.cancel(name), { id: name, status: "CANCELLED" })
    assert.equal((await drawing.status(name)).status, "CANCELLED")
  }
})

test("a full queue is 429 and a purge empties it", async () => {
  for (let i = 0; i < 3; i++) await waiting.run({ input: QUICK })
  await assert.rejects(waiting.run({ input: QUICK }), ({ response }) => response.status === 429)
  assert.deepEqual(await waiting.purgeQueue(), { removed: 3, status: "completed" })
})

test("too many purges are 429", async () => {
  const outcomes = await Promise.allSettled([1, 2, 3].map(() => waiting.purgeQueue()))
  assert.ok(outcomes.some(({ reason }) => reason?.response.status === 429))
})

test("a wrong key is 401 and a bad input 400, each with a sentence", async () => {
  const refusal = status => ({ response }) =>
    response.status === status && typeof response.data.error === "string"
  await assert.rejects(endpointOf(WAITING, "wrong").health(), refusal(401))
  await assert.rejects(waiting.run({ input: { size: 1 } }), refusal(400))
})
