"""Measures stable-diffusion.cpp, with weights in half as its users have them: python sdcpp_peer.py MODEL"""
import sys
import time
from importlib.metadata import version
from pathlib import Path

from stable_diffusion_cpp import StableDiffusion

from figures import SIDE, THREADS, peak_mb, tell


def main():
    program = StableDiffusion(model_path=str(Path(sys.argv[1]) / "ldm.safetensors"), n_threads=THREADS, vae_decode_only=True, verbose=False)
    ends = []

    def progress(step, steps, _seconds):
        if steps == 2:
            ends.append(time.perf_counter())

    # It has no call for a step or for the decoder alone: the times between its own messages are theirs.
    program.generate_image(prompt="a red fox in the snow", width=SIDE, height=SIDE, sample_steps=2, cfg_scale=7.5, sample_method="euler",
                           progress_callback=progress)
    drawn = time.perf_counter()
    tell(version("stable-diffusion-cpp-python"), ends[-1] - ends[-2], drawn - ends[-1], peak_mb())


if __name__ == "__main__":
    main()
