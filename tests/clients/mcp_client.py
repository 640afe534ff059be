"""The official Python client of the Model Context Protocol as published: over HTTP, and over standard input and output, with
a server in the process and with a running one; in the newest version of the protocol, and in the one before it."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

import tap

DRAWING, KEY, BINARY = os.environ["DRAWING"], os.environ["KEY"], os.environ["BINARY"]
TOOLS = ["generate_image", "edit_image", "upscale_image", "get_job", "cancel_job", "list_models"]
QUICK = {"prompt": "a red fox", "width": 128, "height": 128, "steps": 4, "seed": 7, "format": "png"}
PNG = b"\x89PNG\r\n\x1a\n"
MODES = ["auto", "legacy"]


def stdio(*arguments, **environment):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STABLEHAND_")}
    settings = {"STABLEHAND_DEVICE": "cpu", "STABLEHAND_LOG": "warn"} | environment
    if cache := os.environ.get("CACHE"):
        settings["STABLEHAND_CACHE_DIR"] = cache
    return StdioServerParameters(command=BINARY, args=["mcp", *arguments], env=inherited | settings)


def over_http(folder):
    headers = {"Authorization": f"Bearer {KEY}"}
    return streamable_http_client(f"{DRAWING}/mcp", http_client=httpx2.AsyncClient(headers=headers, timeout=60))


def over_stdio(folder):
    return stdio("--data-dir", folder)


def over_stdio_to_the_server(folder):
    return stdio("--url", DRAWING, STABLEHAND_API_KEY=KEY)


WAYS = [over_http, over_stdio, over_stdio_to_the_server]


def everywhere(test):
    """Runs a test in every way and in every mode."""

    def run():
        for way in WAYS:
            for mode in MODES:
                with tempfile.TemporaryDirectory() as folder:

                    async def connected():
                        with anyio.fail_after(120):
                            async with Client(way(folder), mode=mode) as client:
                                await test(client, way, Path(folder))

                    try:
                        anyio.run(connected)
                    except BaseException as error:
                        raise AssertionError(f"{way.__name__}, {mode}") from error

    run.__name__ = test.__name__
    return run


def picture(result):
    assert not result.is_error, result.content
    [image] = [block for block in result.content if block.type == "image"]
    return base64.b64decode(image.data)


@everywhere
async def test_tools_are_listed_and_models_told(client, way, folder):
    tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools] == TOOLS
    about = tools[1].input_schema["properties"]["image"]["description"]
    assert about.endswith("the path of a file on this computer") == (way is not over_http), about
    result = await client.call_tool("list_models", {})
    assert result.structured_content["models"][0]["name"] == "tiny-sd", result.structured_content


@everywhere
async def test_a_picture_is_drawn_and_its_progress_is_heard(client, way, folder):
    steps = []

    async def hear(progress, total, message):
        assert total == 40 and message.startswith("Step "), (total, message)
        steps.append(progress)

    result = await client.call_tool("generate_image", QUICK | {"steps": 40}, progress_callback=hear)
    assert picture(result).startswith(PNG)
    assert steps and steps == sorted(steps) and steps[-1] <= 40, steps
    assert result.structured_content["images"][0] == {"seed": 7, "width": 128, "height": 128, "mime_type": "image/png"}
    again = await client.call_tool("generate_image", QUICK | {"steps": 40})
    assert picture(again) == picture(result)


@everywhere
async def test_a_picture_is_changed(client, way, folder):
    drawn = picture(await client.call_tool("generate_image", QUICK))
    image = base64.b64encode(drawn).decode()
    edit = {"prompt": "a blue fox", "steps": 4, "seed": 7, "format": "png"}
    changed = picture(await client.call_tool("edit_image", edit | {"image": image}))
    assert changed.startswith(PNG) and changed != drawn
    file = folder / "a fox.png"
    file.write_bytes(drawn)
    by_path = await client.call_tool("edit_image", edit | {"image": str(file)})
    if way is over_http:
        assert by_path.is_error and "stablehand mcp" in by_path.content[0].text, by_path
    else:
        assert picture(by_path) == changed


@everywhere
async def test_a_picture_is_enlarged(client, way, folder):
    drawn = picture(await client.call_tool("generate_image", QUICK))
    image = base64.b64encode(drawn).decode()
    result = await client.call_tool("upscale_image", {"image": image, "scale": 2, "format": "png"})
    assert picture(result).startswith(PNG)
    [described] = result.structured_content["images"]
    assert (described["width"], described["height"]) == (256, 256), described


@everywhere
async def test_a_mistake_is_a_sentence(client, way, folder):
    result = await client.call_tool("generate_image", {"prompt": "a", "steps": 501})
    assert result.is_error and result.content[0].text.startswith("steps does not meet the constraints."), result


@everywhere
async def test_a_call_that_is_given_up_is_drawn_no_further(client, way, folder):
    long = QUICK | {"steps": 500, "count": 10, "width": 512, "height": 512}
    begun = anyio.Event()

    async def hear(*_):
        begun.set()

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: client.call_tool("generate_image", long, progress_callback=hear))
        await begun.wait()
        group.cancel_scope.cancel()
    # The only worker is free again.
    with anyio.fail_after(30):
        assert picture(await client.call_tool("generate_image", QUICK)).startswith(PNG)


@everywhere
async def test_a_job_is_started_looked_at_and_cancelled(client, way, folder):
    started = await client.call_tool("generate_image", QUICK | {"wait_seconds": 0, "steps": 10})
    job = started.structured_content["job_id"]
    assert picture(await client.call_tool("get_job", {"job_id": job})).startswith(PNG)
    endless = {"wait_seconds": 0, "steps": 500, "count": 10, "width": 512, "height": 512}
    started = await client.call_tool("generate_image", QUICK | endless)
    job = {"job_id": started.structured_content["job_id"]}
    cancelled = await client.call_tool("cancel_job", job)
    assert cancelled.structured_content["status"] == "CANCELLED", cancelled
    assert (await client.call_tool("get_job", job)).is_error


def raw(lines, *arguments, **environment):
    """What `stablehand mcp` writes for these lines, each a message."""
    server = stdio(*arguments, **environment)
    text = "".join(line + "\n" for line in lines)
    done = subprocess.run(
        [server.command, *server.args], env=server.env, input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_standard_output_has_messages_only():
    begin = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
    message = lambda id, method, params: json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    lines = [message(1, "initialize", begin), "nonsense", "[]", "", message(2, "resources/read", {"uri": "a"})]
    with tempfile.TemporaryDirectory() as folder:
        answers = raw(lines, "--data-dir", folder, STABLEHAND_LOG="debug")
        assert not list(Path(folder).glob("*.db")), "jobs belong elsewhere"
    assert [answer["id"] for answer in answers[:3]] == [1, None, None], answers
    assert [answer["error"]["code"] for answer in answers[1:3]] == [-32700, -32700]


def test_a_server_that_is_not_there_and_a_wrong_key_are_explained():
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    [answer] = raw([ping], "--url", "http://127.0.0.1:9")
    assert "cannot be reached" in answer["error"]["message"], answer
    [answer] = raw([ping], "--url", DRAWING, STABLEHAND_API_KEY="wrong")
    assert "wants an API key" in answer["error"]["message"], answer


def test_everything_was_forgotten():
    deadline = time.time() + 30
    while time.time() < deadline:
        request = urllib.request.Request(
            f"{DRAWING}/v2/stable-diffusion-v1/health", headers={"Authorization": KEY}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            jobs = json.load(answer)["jobs"]
        if jobs["inProgress"] == jobs["inQueue"] == 0:
            return
        time.sleep(0.2)
    raise AssertionError(jobs)


if __name__ == "__main__":
    sys.exit(tap.run(globals()))
