"""webuiapi, sd-backend-client and image-generation-mcp as published, with only the server's address and a key set."""

import asyncio
import io
import os
import sys
import threading
import time
import urllib.parse

import sd_backend_client as sdb
import webuiapi
from image_generation_mcp.providers.sd_webui import SdWebuiImageProvider
from image_generation_mcp.providers.types import ImageProviderError, InputImage
from PIL import Image

import tap

DRAWING, KEY = os.environ["DRAWING"], os.environ["KEY"]
ADDRESS = urllib.parse.urlparse(DRAWING)
QUICK = {"steps": 2, "seed": 7, "width": 128, "height": 128}
TITLE = "stable-diffusion-v1.safetensors"
PHOTO = Image.merge("RGB", [Image.linear_gradient("L").resize((128, 128))] * 3)
MASK = Image.new("L", (128, 128))
MASK.paste(255, (64, 0, 128, 128))


def webui(**settings):
    login = {"username": "user", "password": KEY} | settings
    return webuiapi.WebUIApi(host=ADDRESS.hostname, port=ADDRESS.port, **login)


def backend():
    return sdb.connect_to_backend(DRAWING, credentials_provider=lambda: ("user", KEY))


def params(**fields):
    fields = {"prompt": "a red fox", "sampler": "Euler a"} | QUICK | fields
    return sdb.DiffusionParams(**fields)


def raised(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind} was not raised")


def test_webuiapi_draws_from_a_prompt():
    result = webui().txt2img(prompt="a red fox", sampler_name="DPM++ 2M", scheduler="Karras", n_iter=2, **QUICK)
    assert [image.size for image in result.images] == [(128, 128)] * 2
    assert result.info["all_seeds"] == [7, 8] and result.parameters["steps"] == 2, result.info
    assert "Schedule type: Karras" in result.info["infotexts"][0], result.info
    assert result.image.info["parameters"] == result.info["infotexts"][0]


def test_webuiapi_draws_from_a_picture_with_and_without_a_mask():
    result = webui().img2img(images=[PHOTO], prompt="a red fox", denoising_strength=0.6, **QUICK)
    assert result.image.size == (128, 128)
    masked = webui().img2img(images=[PHOTO], mask_image=MASK, prompt="a red fox", inpainting_fill=1, **QUICK)
    assert masked.image.size == (128, 128)
    # What the mask does not show is the picture's own.
    kept = masked.image.convert("RGB").crop((0, 0, 48, 128))
    assert kept.tobytes() == PHOTO.crop((0, 0, 48, 128)).tobytes()


def test_webuiapi_draws_a_second_larger_pass():
    result = webui().txt2img(prompt="a red fox", enable_hr=True, hr_scale=2, denoising_strength=0.6, **QUICK)
    assert result.image.size == (256, 256)
    assert "Hires upscaler: Latent" in result.info["infotexts"][0], result.info


def test_webuiapi_reads_texts_and_enlarges():
    api = webui()
    drawn = api.txt2img(prompt="a red fox", **QUICK)
    told = api.png_info(drawn.image)
    assert told.info.startswith("a red fox\nSteps: 2") and told.parameters["Seed"] == "7", told
    assert api.extra_single_image(drawn.image, upscaler_1="Lanczos", upscaling_resize=2).image.size == (256, 256)
    assert api.extra_single_image(drawn.image).image.size == (128, 128)
    sizes = [image.size for image in api.extra_batch_images([drawn.image, PHOTO], upscaler_1="Nearest").images]
    assert sizes == [(256, 256), (256, 256)]


def test_webuiapi_looks_around():
    api = webui()
    assert api.util_get_model_names() == [TITLE] and api.util_get_current_model() == TITLE
    assert "Euler a" in api.util_get_sampler_names() and "karras" in api.util_get_scheduler_names()
    for get in (
        "get_cmd_flags get_sd_vae get_upscalers get_latent_upscale_modes get_loras get_hypernetworks "
        "get_face_restorers get_realesrgan_models get_prompt_styles get_scripts get_embeddings get_memory"
    ).split():
        assert getattr(api, get)() is not None, get
    assert api.controlnet_version() == 3 and "canny" in api.controlnet_module_list()
    api.refresh_checkpoints()


def test_webuiapi_sets_the_model_and_waits_and_stops():
    api = webui()
    api.util_set_model("stable diffusion")
    api.set_options({"CLIP_stop_at_last_layers": 1})
    assert api.get_options()["sd_model_checkpoint"] == TITLE
    api.util_wait_for_ready()
    assert api.interrupt() == {} and api.skip() is None


def test_webuiapi_interrupts_and_gets_the_picture_so_far():
    api, found = webui(), {}
    draw = lambda: found.update(result=webui().txt2img(prompt="a red fox", steps=500, width=128, height=128, seed=7))
    drawing = threading.Thread(target=draw)
    drawing.start()
    while api.get_progress()["state"]["sampling_step"] < 3:
        time.sleep(0.05)
    time.sleep(1.1)
    assert api.get_progress()["current_image"]
    api.interrupt()
    drawing.join(60)
    result = found["result"]
    assert result.image.size == (128, 128) and "were stopped after" in result.json["warnings"][0], result.json


def test_webuiapi_is_refused_without_the_key():
    assert raised(RuntimeError, lambda: webui(password="wrong").txt2img(**QUICK)).args[0] == 401


def test_sd_backend_client_lists_what_there_is():
    client = backend()
    assert isinstance(client, sdb.A1111Webservice)
    assert [model.name for model in client.list_checkpoints()] == [TITLE]
    names = lambda listed: [option.name.lower() for option in listed]
    # It gives samplers ComfyUI's names.
    assert "euler_ancestral" in names(client.list_samplers()) and "karras" in names(client.list_schedulers())
    assert "lanczos" in names(client.list_upscalers())
    for listed in "vaes loras hypernetworks controlnet_models".split():
        assert getattr(client, f"list_{listed}")() == [], listed
    capabilities = client.get_capabilities()
    assert capabilities.controlnet and capabilities.scheduler and not capabilities.interrogate, capabilities
    assert "canny" in [preprocessor.name for preprocessor in client.get_controlnet_preprocessors()]
    for refresh in (client.refresh_checkpoints, client.refresh_vae, client.refresh_loras):
        assert refresh().status_code == 200
    client.interrupt()


def test_sd_backend_client_draws_changes_and_repaints():
    client = backend()
    for handle in (
        client.submit_txt2img(params(batch_size=2)),
        client.submit_img2img(params(init_images=[PHOTO], denoising_strength=0.6)),
        client.submit_inpaint(params(init_images=[PHOTO], mask=MASK, inpaint_full_res=True)),
    ):
        result = handle.wait(120)
        assert result.images[0].size == (128, 128) and result.seeds[0] == 7, result
    assert client.submit_upscale(PHOTO, 256, 256).wait(60).images[0].size == (256, 256)


def test_sd_backend_client_is_told_how_far_it_is_and_cancels():
    handle = backend().submit_txt2img(params(steps=500))
    while not (progress := handle.poll()).progress:
        assert progress.status in (sdb.GenerationStatus.PENDING, sdb.GenerationStatus.ACTIVE), progress
        time.sleep(0.05)
    assert handle.cancel()
    raised(sdb.GenerationError, lambda: handle.wait(60))


def with_provider(use, key=KEY):
    async def used():
        # It has no field for a key, but its HTTP library takes one out of the address.
        provider = SdWebuiImageProvider(DRAWING.replace("://", f"://user:{key}@"))
        try:
            return await use(provider)
        finally:
            await provider.aclose()

    return asyncio.run(used())


def opened(result):
    assert result.content_type == "image/png", result.content_type
    return Image.open(io.BytesIO(result.image_data))


def test_image_generation_mcp_finds_the_model():
    found = with_provider(lambda provider: provider.discover_capabilities())
    assert not found.degraded and [model.model_id for model in found.models] == [TITLE], found


def test_image_generation_mcp_draws_and_changes_a_picture():
    async def use(provider):
        heard = []
        drawn = await provider.generate(
            "a red fox", aspect_ratio="16:9", model=TITLE, progress_callback=lambda *told: heard.append(told)
        )
        # No size of its own is on the model's grid.
        assert opened(drawn).size == (912, 512) and drawn.provider_metadata["seed"] >= 0, drawn.provider_metadata
        assert heard and all(0 <= progress <= 1 for progress, _ in heard), heard
        file = io.BytesIO()
        PHOTO.save(file, "PNG")
        changed = await provider.generate(
            "a blue fox", aspect_ratio="3:2", reference_images=[InputImage(file.getvalue())], strength=0.5
        )
        assert opened(changed).size == (768, 512) and changed.provider_metadata["edited"], changed.provider_metadata

    with_provider(use)


def test_image_generation_mcp_shows_a_refusal():
    error = raised(ImageProviderError, lambda: with_provider(lambda provider: provider.generate("a"), key="wrong"))
    assert "HTTP 401" in str(error) and "No valid API key" in str(error), error


if __name__ == "__main__":
    sys.exit(tap.run(globals()))
