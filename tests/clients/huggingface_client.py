"""huggingface_hub as published, with only URL and key set."""

import io
import os
import sys

import huggingface_hub
from PIL import Image

import tap

DRAWING, KEY = os.environ["DRAWING"], os.environ["KEY"]
QUICK = {"num_inference_steps": 2, "seed": 7}


def client(key=KEY, path="/huggingface"):
    return huggingface_hub.InferenceClient(model=f"{DRAWING}{path}", token=key)


def test_text_to_image():
    draw = lambda **more: client().text_to_image("a red fox", width=128, height=96, **(QUICK | more))
    one, again, other = draw(), draw(), draw(seed=8)
    assert one.size == (128, 96)
    assert one.tobytes() == again.tobytes() != other.tobytes()
    assert draw(negative_prompt="rain", guidance_scale=3.0, scheduler="Euler a").size == (128, 96)


def test_a_size_beyond_our_limit_is_enlarged():
    assert client().text_to_image("a red fox", width=1024, height=1024, **QUICK).size == (1024, 1024)


def test_a_model_in_the_path():
    assert client(path="/huggingface/models/stable-diffusion-v1").text_to_image("a", **QUICK).size == (512, 512)


def test_image_to_image():
    file = io.BytesIO()
    Image.new("RGB", (128, 128), (200, 90, 30)).save(file, "PNG")
    changed = client().image_to_image(file.getvalue(), prompt="a blue fox", num_inference_steps=2, guidance_scale=2.0)
    assert changed.size == (128, 128)


def test_refusals_have_our_sentences():
    for sentence, key, steps in (("num_inference_steps does not meet", KEY, 0), ("", "wrong", 2)):
        try:
            client(key).text_to_image("a red fox", num_inference_steps=steps)
        except huggingface_hub.errors.HfHubHTTPError as error:
            assert sentence in f"{error} {error.response.text}", error.response.text
            assert error.response.status_code == (400 if key == KEY else 401), error.response.status_code
        else:
            raise AssertionError("it was accepted")


if __name__ == "__main__":
    sys.exit(tap.run(globals()))
