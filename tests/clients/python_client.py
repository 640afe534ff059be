"""The published Python client, with only its base URL and key changed."""

import asyncio
import os
import sys

DRAWING, WAITING, KEY = os.environ["DRAWING"], os.environ["WAITING"], os.environ["KEY"]
ENDPOINT = "stable-diffusion-v1"
QUICK = {"prompt": "a red fox", "num_inference_steps": 2, "width": 128, "height": 128, "seed": 7}
LONG = QUICK | {"num_inference_steps": 500, "num_outputs": 10}
PNG = b"\x89PNG\r\n\x1a\n"

# The client reads this documented variable when it is imported.
os.environ["RUNPOD_ENDPOINT_BASE_URL"] = f"{DRAWING}/v2"
import requests
import runpod
from runpod.endpoint.asyncio import asyncio_runner
from runpod.http_client import AsyncClientSession

import tap

runpod.api_key = KEY


def drawing():
    return runpod.Endpoint(ENDPOINT)


def waiting(key=KEY):
    """The server that runs no jobs."""
    runpod.endpoint_url_base = f"{WAITING}/v2"
    try:
        return runpod.Endpoint(ENDPOINT, api_key=key)
    finally:
        runpod.endpoint_url_base = f"{DRAWING}/v2"


def assert_pictures(output, seeds):
    assert [picture["seed"] for picture in output] == seeds, output
    for picture in output:
        assert sorted(picture) == ["image", "seed"], picture
        # Without a key: the URL is enough.
        answer = requests.get(picture["image"], timeout=10)
        assert answer.headers["content-type"] == "image/png", answer.headers
        assert answer.content.startswith(PNG)


def test_a_job_is_run_watched_and_its_picture_fetched():
    job = drawing().run({"input": QUICK})
    assert job.status() in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    assert_pictures(job.output(timeout=60), [7])
    assert job.status() == "COMPLETED"


def test_the_client_wraps_an_input_that_has_no_wrapper():
    assert_pictures(drawing().run(QUICK | {"num_outputs": 2}).output(timeout=60), [7, 8])


def test_run_sync_answers_the_pictures():
    assert_pictures(drawing().run_sync({"input": QUICK}, timeout=60), [7])


def test_a_stream_brings_steps_then_the_pictures_and_ends():
    chunks = list(drawing().run({"input": LONG | {"num_outputs": 2}}).stream())
    pictures = [chunk for chunk in chunks if "image" in chunk]
    steps = [chunk["step"] for chunk in chunks if "step" in chunk]
    assert chunks[-2:] == pictures and len(chunks) == len(pictures) + len(steps), chunks
    assert steps and steps == sorted(set(steps)) and steps[-1] <= 500, steps
    assert_pictures(pictures, [7, 8])


def test_a_running_job_is_cancelled_within_the_clients_three_seconds():
    job = drawing().run({"input": LONG})
    assert job.cancel() == {"id": job.job_id, "status": "CANCELLED"}
    assert job.status() == "CANCELLED"
    assert job.output() is None


def test_status_and_health_answer_while_a_job_is_drawn():
    endpoint = drawing()
    job = endpoint.run({"input": LONG})
    try:
        while (status := job.status()) == "IN_QUEUE":
            pass
        assert status == "IN_PROGRESS"
        health = endpoint.health()
        assert sorted(health["jobs"]) == ["completed", "failed", "inProgress", "inQueue", "retried"]
        assert sorted(health["workers"]) == ["idle", "initializing", "ready", "running", "throttled"]
        # Of several servers behind a balancer, it is about one.
        if not os.environ["BALANCED"]:
            assert health["jobs"]["inProgress"] == 1 and health["workers"]["running"] == 1, health
    finally:
        job.cancel()


def test_a_full_queue_is_429_and_a_purge_empties_it():
    endpoint = waiting()
    jobs = [endpoint.run({"input": QUICK}) for _ in range(3)]
    try:
        endpoint.run({"input": QUICK})
        raise AssertionError("a fourth job was accepted")
    except requests.HTTPError as error:
        assert error.response.status_code == 429 and int(error.response.headers["retry-after"]) > 0
        assert isinstance(error.response.json()["error"], str)
    assert endpoint.purge_queue() == {"removed": 3, "status": "completed"}
    try:
        jobs[0].status()
        raise AssertionError("a purged job is still known")
    except requests.HTTPError as error:
        assert error.response.status_code == 404


def test_too_many_purges_are_429_with_the_time_to_wait():
    endpoint = waiting()
    try:
        for _ in range(3):
            endpoint.purge_queue()
        raise AssertionError("three purges within ten seconds")
    except requests.HTTPError as error:
        assert error.response.status_code == 429
        assert 0 < int(error.response.headers["retry-after"]) <= 10


def test_a_wrong_key_is_the_clients_own_unauthorized_error():
    try:
        waiting(key="wrong").health()
        raise AssertionError("a wrong key was accepted")
    except RuntimeError as error:
        assert str(error).startswith("401 Unauthorized"), error


def test_the_asyncio_client_runs_cancels_and_purges():
    async def talk():
        async with AsyncClientSession() as session:
            endpoint = asyncio_runner.Endpoint(ENDPOINT, session)
            job = await endpoint.run(QUICK)
            assert_pictures(await job.output(timeout=60), [7])
            long = await endpoint.run(LONG)
            assert await long.cancel() == {"id": long.job_id, "status": "CANCELLED"}
            assert (await endpoint.health())["jobs"]["completed"] > 0
            assert await endpoint.purge_queue() == {"removed": 0, "status": "completed"}

    asyncio.run(talk())


if __name__ == "__main__":
    sys.exit(tap.run(globals()))
