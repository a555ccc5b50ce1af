"""Image data by name: the bundled sets, a folder of pictures, or any image data set of TFDS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxgen.data import bundled
from jaxgen.data.dataset import Batch, Dataset, Spec, unknown

IMAGE_KEYS = ("image", "source", "target")


def flip(batch: Batch, uniforms: np.ndarray) -> Batch:
    """Mirrors an example left to right, all its images alike, where the first of its `uniforms` [n, 4] is below 1/2."""
    mirror = (uniforms[:, 0] < 0.5)[:, None, None, None]
    flipped = {key: np.where(mirror, x[:, :, ::-1], x) for key, x in batch.items() if key in IMAGE_KEYS}  # [n, H, W, C]
    return {**batch, **flipped}


@dataclass(frozen=True)
class Images:
    """An image data set: `image` uint8 [H, W, C], and `label`, `attribute`, `source`, `target` where it has them."""

    name: str = "faces"
    """A bundled set (faces, fashion, digits, emoji, emoji_drawings), tfds:NAME[/CONFIG][:VERSION] or folder:DIR."""
    size: int | None = None
    """Resize the shorter side to this and crop the centre (folder and TFDS; needed where the images differ in size)."""
    flip: bool = False
    """Mirror half of the training images left to right."""
    validation: float = 0.05
    """Taken from the end of train where a set has no validation split: a fraction below 1, or a number of examples."""
    data_dir: str | None = None
    """Where TFDS data sets lie (default: TFDS's own)."""

    def load(self) -> Dataset:
        """Opens the data set.

        Raises:
          ValueError: an unknown name, a size that a bundled set does not have, or images that do not fit together.
          FileNotFoundError: the folder, or the prepared TFDS data set, does not exist.
        """
        if self.size is not None and self.size < 1:
            raise ValueError(f"--data.size is a number of pixels from 1 on, not {self.size}")
        kind, _, rest = self.name.partition(":")
        if kind == "tfds" and rest:
            from jaxgen.data import tfds

            data = tfds.load(rest, self.size, self.validation, self.data_dir)
        elif kind == "folder" and rest:
            from jaxgen.data import folder

            data = folder.load(rest, self.size, self.validation)
        else:
            data = self._bundled()
        return data._replace(augment=flip) if self.flip else data

    def spec(self) -> Spec:
        """`load().spec`; of a TFDS data set that is not on disk, all but the numbers of examples.

        Raises: see `load`; a data set that TFDS knows need not be on disk.
        """
        kind, _, rest = self.name.partition(":")
        if kind != "tfds" or not rest or (self.size or 1) < 1:  # the last of these is for `load` to refuse
            return self.load().spec
        from jaxgen.data import tfds

        return tfds.spec_of(rest, self.size, self.validation, self.data_dir)

    def _bundled(self) -> Dataset:
        if self.name not in bundled.KEYS:
            forms = (*bundled.KEYS, "tfds:NAME[/CONFIG][:VERSION]", "folder:DIR")
            raise unknown("image data set", self.name, forms)
        data = bundled.load(self.name, self.validation)
        height, width, _ = data.spec.shape("image")
        if self.size not in (None, height):
            raise ValueError(
                f"the images of {self.name!r} are {height} x {width}, and bundled sets are not resized: leave out "
                f"--data.size {self.size}"
            )
        return data
