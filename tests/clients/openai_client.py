"""OpenAI's Python library as published, with only its base URL and key set."""

import base64
import io
import os
import struct
import sys
import time
import urllib.request
import zlib

import openai

import tap

DRAWING, WAITING, KEY = os.environ["DRAWING"], os.environ["WAITING"], os.environ["KEY"]
QUICK = {"steps": 2, "seed": 7}
PNG = b"\x89PNG\r\n\x1a\n"


def client(base=DRAWING, **settings):
    return openai.OpenAI(base_url=f"{base}/v1", **({"api_key": KEY} | settings))


def generate(**fields):
    extra = QUICK | fields.pop("extra_body", {})
    return client().images.generate(
        **({"prompt": "a red fox", "model": "gpt-image-1", "size": "128x128"} | fields), extra_body=extra
    )


def png(width, height, pixel):
    """An RGBA file; `pixel` gives the four values at x, y."""
    rows = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height))
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return PNG + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def size(file):
    assert file.startswith(PNG), file[:20]
    return struct.unpack(">II", file[16:24])


PHOTO = png(128, 128, lambda x, y: (x * 2, y * 2, 90, 255))
MASK = png(128, 128, lambda x, y: (0, 0, 0, 0 if x < 64 else 255))


def pixels(answer):
    return base64.b64decode(answer.data[0].b64_json)


def test_models_are_listed_and_looked_at():
    assert [model.id for model in client().models.list()] == ["stable-diffusion-v1"]
    assert client().models.retrieve("stable-diffusion-v1").owned_by == "stablehand"


def test_pictures_come_in_base64_and_by_url():
    answer = generate(n=2, response_format="b64_json")
    assert [size(base64.b64decode(item.b64_json)) for item in answer.data] == [(128, 128)] * 2
    assert answer.data[0].b64_json != answer.data[1].b64_json
    assert (answer.size, answer.output_format, answer.usage.total_tokens) == ("128x128", "png", 0)
    [item] = generate(model="dall-e-2").data
    assert item.b64_json is None
    # Without a key: the URL is enough.
    with urllib.request.urlopen(item.url, timeout=10) as file:
        assert size(file.read()) == (128, 128)


def test_the_shortest_call_works():
    answer = client().images.generate(prompt="a red fox", extra_body=QUICK)
    assert size(pixels(answer)) == (512, 512) and answer.data[0].url


def test_sizes_beyond_the_limit_and_formats():
    answer = generate(size="1536x1024")
    assert size(pixels(answer)) == (1536, 1024) and b"Drawn at" in pixels(answer)
    assert pixels(generate(output_format="jpeg", output_compression=70)).startswith(b"\xff\xd8")
    assert pixels(generate(output_format="webp"))[8:12] == b"WEBP"


def test_one_seed_draws_one_picture():
    assert pixels(generate()) == pixels(generate()) != pixels(generate(extra_body={"seed": 8}))


def test_edits_take_one_picture_several_a_mask_and_raw_bytes():
    named = lambda name: (name, io.BytesIO(PHOTO), "image/png")
    edit = lambda image, **fields: client().images.edit(
        image=image, prompt="a blue fox", model="gpt-image-1", extra_body={"steps": 4, "seed": 7}, **fields
    )
    one = edit(named("photo.png"))
    assert size(pixels(one)) == (128, 128)
    assert pixels(edit([named("a.png"), named("b.png")])) == pixels(one)
    assert pixels(edit(PHOTO)) == pixels(one)
    masked = edit(PHOTO, mask=MASK)
    assert size(pixels(masked)) == (128, 128) and pixels(masked) != pixels(one)


def test_a_stream_of_a_generation_brings_previews_and_the_picture():
    stream = client().images.generate(
        prompt="a red fox", model="gpt-image-1", stream=True, partial_images=2, extra_body={"steps": 40, "seed": 7}
    )
    events = list(stream)
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds[-1] == "completed" and set(kinds[:-1]) <= {"partial_image"} and 1 <= len(kinds) <= 3, kinds
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(events) - 1))
    assert size(base64.b64decode(events[-1].b64_json)) == (512, 512)
    assert events[-1].usage.total_tokens == 0


def test_a_stream_of_an_edit_brings_the_picture():
    stream = client().images.edit(
        image=PHOTO, prompt="a blue fox", model="gpt-image-1", stream=True, extra_body={"steps": 2}
    )
    [event] = list(stream)
    assert event.type == "image_edit.completed" and size(base64.b64decode(event.b64_json)) == (128, 128)


def raised(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def test_refusals_are_typed_errors_with_their_sentence():
    bad = raised(openai.BadRequestError, lambda: generate(n=11))
    assert bad.param == "n" and "it must be from 1 to 10" in str(bad)
    wrong = raised(openai.AuthenticationError, lambda: client(api_key="wrong").models.list())
    assert wrong.code == "invalid_api_key"
    missing = raised(openai.NotFoundError, lambda: client().models.retrieve("flux"))
    assert missing.code == "model_not_found" and "stable-diffusion-v1" in str(missing)
    gone = raised(openai.NotFoundError, lambda: client().images.create_variation(image=PHOTO))
    assert "No such route." in str(gone)


def test_a_full_queue_is_a_rate_limit_error():
    waiting = client(WAITING, max_retries=0, timeout=30)
    jobs = [native(WAITING, "run", {"input": {"prompt": "a"}})["id"] for _ in range(3)]
    full = raised(openai.RateLimitError, lambda: waiting.images.generate(prompt="a red fox"))
    assert full.code == "rate_limit_exceeded" and "The queue is full" in str(full)
    for job in jobs:
        native(WAITING, f"cancel/{job}")


def native(base, path, body=None):
    import json

    request = urllib.request.Request(
        f"{base}/v2/stable-diffusion-v1/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": KEY},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def ended(status):
    """How many jobs of the drawing server a worker has ended so."""
    request = urllib.request.Request(f"{DRAWING}/metrics", headers={"Authorization": KEY})
    with urllib.request.urlopen(request, timeout=10) as page:
        lines = page.read().decode().splitlines()
    ended = [line for line in lines if line.startswith("stablehand_jobs_ended_total") and f'"{status}"' in line]
    return int(ended[0].split()[-1]) if ended else 0


def test_a_job_that_fails_runs_once():
    before = ended("FAILED")
    # Its picture cannot be fetched: the address is not a public one.
    edit = lambda: client().post(
        "/images/edits",
        body={"prompt": "a", "images": ["http://127.0.0.1/none.png"], "size": "128x128", "steps": 2},
        cast_to=object,
    )
    error = raised(openai.InternalServerError, edit)
    assert error.code == "job_failed" and error.response.headers["x-should-retry"] == "false", error
    assert ended("FAILED") == before + 1


def test_a_client_that_gives_up_cancels_its_job():
    health = lambda: native(DRAWING, "health")["jobs"]
    impatient = client(timeout=1, max_retries=0)
    raised(
        openai.APITimeoutError,
        lambda: impatient.images.generate(prompt="a red fox", n=10, extra_body={"steps": 500}),
    )
    for _ in range(100):
        if health()["inProgress"] == health()["inQueue"] == 0:
            return
        time.sleep(0.1)
    raise AssertionError(health())


if __name__ == "__main__":
    sys.exit(tap.run(globals()))
