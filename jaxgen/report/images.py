"""Image grids, PNG files and animations."""

import math
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.report.atomic import replacing

TILE = 96  # pixels; small images are enlarged to about this size


def grid(images: ArrayLike, columns: int | None = None, scale: int | None = None, padding: int = 1) -> np.ndarray:
    """Puts images on one white sheet, row by row.

    Args:
      images: uint8 [N, H, W, C], C = 1 or 3.
      columns: images a row; by default the sheet is nearly square.
      scale: every pixel becomes scale × scale pixels; by default small images grow to about 96 pixels.
      padding: width of the white lines round the images, in pixels of the images.

    Returns:
      uint8 [(rows · (H + padding) + padding) · scale, (columns · (W + padding) + padding) · scale, 3].

    Raises:
      ValueError: the images have another shape or dtype, or there are none.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(f"a grid needs uint8 images [N, H, W, 1 or 3], not {images.dtype} {list(images.shape)}")
    num, height, width, _ = images.shape
    columns = min(columns or math.ceil(math.sqrt(num * height / width)), num)
    rows = math.ceil(num / columns)
    scale = scale or max(1, round(TILE / max(height, width)))
    cell_height, cell_width = height + padding, width + padding
    sheet = np.full((rows * cell_height + padding, columns * cell_width + padding, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * cell_height + padding, i % columns * cell_width + padding
        sheet[top : top + height, left : left + width] = image  # one channel spreads over three
    return sheet.repeat(scale, axis=0).repeat(scale, axis=1)


def write_png(path: str | os.PathLike[str], array: ArrayLike) -> None:
    """Writes uint8 [H, W, 3] or [H, W] as a PNG file, atomically."""
    from PIL import Image

    with replacing(path) as file:
        Image.fromarray(np.asarray(array, np.uint8)).save(file, format="PNG")


def write_gif(path: str | os.PathLike[str], pictures: Sequence[np.ndarray], seconds: float = 3.0) -> None:
    """Writes pictures, uint8 [H, W, 3], as an endless animation of about `seconds`; the last one stays longer."""
    from PIL import Image

    frames = [Image.fromarray(picture) for picture in pictures]
    each = max(20, round(1000 * seconds / len(frames)))  # milliseconds; browsers slow down below 20
    with replacing(path) as file:
        frames[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=[each] * (len(frames) - 1) + [1000],
            loop=0,
        )
