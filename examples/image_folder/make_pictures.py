"""Draws the folder `pictures`: eighty pictures of each of four textures, in random colours."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE, COUNT = 32, 80


def texture(name: str, draw: np.random.Generator) -> np.ndarray:
    """Where a picture has its second colour, from 0 to 1."""
    rows, columns = np.mgrid[:SIZE, :SIZE] * 2 * np.pi / draw.uniform(5, 9) + draw.uniform(0, 6)
    waves = {
        "across": np.sin(rows),
        "along": np.sin(columns),
        "checks": np.sin(rows) * np.sin(columns),
        "noise": draw.normal(0, 0.6, (SIZE, SIZE)),
    }
    return (waves[name][..., None] + 1) / 2


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    for kind in ("across", "along", "checks", "noise"):
        folder = Path("pictures", kind)
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(COUNT):
            first = generator.uniform(0, 255, 3)
            second = (first + 128) % 255
            share = texture(kind, generator)
            pixels = first * (1 - share) + second * share + generator.normal(0, 10, (SIZE, SIZE, 3))
            Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(folder / f"{i:02}.png")
