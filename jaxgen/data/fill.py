"""Pictures that are given: to reconstruct, or to fill in where a mask says, as a user names them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxgen.config import closest
from jaxgen.data.dataset import Dataset, Spec
from jaxgen.data.folder import decode


def known_pixels(text: str, spec: Spec, load: Callable[[], Dataset]) -> np.ndarray:
    """The picture to fill in, uint8 [H, W, C].

    Args:
      text: a PNG or JPEG file, or `SPLIT:NUMBER`, an example of the run's own data such as `test:3`.
      spec: the data's description.
      load: opens the data; called for an example alone.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a picture of another size than the model's, an unknown split, or a number beyond its end.
    """
    height, width, channels = spec.shape("image")
    if found := re.fullmatch(r"(\w+):(\d+)", text):
        split, number = found[1], int(found[2])
        if number >= spec.count(split):
            raise ValueError(f"{split} has the examples 0 … {spec.count(split) - 1}, not {number}")
        return load().read(split, np.array([number]), ("image",))["image"][0]
    if not Path(text).is_file():
        raise FileNotFoundError(f"no picture {text}; pass a PNG or JPEG file, or an example such as test:3")
    image = decode(Path(text), channels, None)
    if image.shape[:2] != (height, width):
        raise ValueError(f"{text} is {image.shape[0]}×{image.shape[1]}, but the model draws {height}×{width}")
    if spec.levels != 256:
        image = np.round(image * ((spec.levels - 1) / 255)).astype(np.uint8)
    return image


def pictures(text: str, spec: Spec, load: Callable[[], Dataset], num: int) -> np.ndarray:
    """`num` pictures, uint8 [num, H, W, C]: the first ones of a split, or one picture again and again.

    Args:
      text: a split's name, or what `known_pixels` takes.
      spec: the data's description.
      load: opens the data; called for examples alone.
      num: how many.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the split has fewer, and see `known_pixels`.
    """
    if text not in spec.counts:
        return np.stack([known_pixels(text, spec, load)] * num)
    if num > spec.count(text):
        raise ValueError(f"{text} has {spec.count(text)} pictures; ask for so many or fewer, not {num}")
    return load().read(text, np.arange(num), ("image",))["image"]


def mask_of(text: str, spec: Spec) -> np.ndarray:
    """What is to be drawn, float32 [H, W, 1]: 1 there, 0 where the picture is kept.

    Args:
      text: `left`, `right`, `top`, `bottom` (that half) or `centre` (half its height and width), or a picture file,
        white where it is to be drawn.
      spec: the data's description.

    Raises:
      ValueError: neither of them, a picture of another size, or one that asks for nothing.
    """
    height, width, _ = spec.shape("image")
    mask = np.zeros((height, width, 1), np.float32)
    parts: dict[str, tuple[slice, slice]] = {
        "left": np.s_[:, : width // 2],
        "right": np.s_[:, width // 2 :],
        "top": np.s_[: height // 2, :],
        "bottom": np.s_[height // 2 :, :],
        "centre": np.s_[height // 4 : height - height // 4, width // 4 : width - width // 4],
    }
    if text in parts:
        mask[parts[text]] = 1
        return mask
    if not Path(text).is_file():
        raise ValueError(f"a mask is a picture file or a part of the image, not {text!r}{closest(text, parts)}")
    picture = decode(Path(text), 1, None)
    if picture.shape[:2] != (height, width):
        raise ValueError(f"the mask {text} is {picture.shape[0]}×{picture.shape[1]}, the images {height}×{width}")
    mask[picture > 127] = 1
    if not mask.any():
        raise ValueError(f"the mask {text} is black: nothing is to be drawn (white is drawn, black is kept)")
    return mask
