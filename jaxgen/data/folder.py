"""Pictures in a folder (PNG and JPEG, in sub-folders as well), decoded when they are read.

- `DIR/**/x.png`: one class, no label.
- `DIR/cat/**/x.png`, `DIR/dog/**/y.png`: sub-folders as classes, when two or more hold pictures.
- `DIR/train/…`, `DIR/test/…`: the splits, when train stands beside test or validation; classes lie below them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxgen.data.dataset import Batch, Dataset, Spec, num_held_out

SUFFIXES = (".png", ".jpg", ".jpeg")
SPLITS = ("train", "validation", "test")
END = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}
DECODED = 2**26  # bytes of pictures, in all, that are decoded when a folder is opened: seconds
GREY_MODES = ("1", "L")
COLOR_MODES = ("P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the shorter side to `size` and crops the centre: uint8 [H, W, C] → [size, size, C]."""
    from PIL import Image, ImageOps

    grey = image.shape[-1] == 1
    fitted = np.asarray(ImageOps.fit(Image.fromarray(image[..., 0] if grey else image), (size, size)))
    return fitted[..., None] if grey else fitted


def decode(path: Path, channels: int, size: int | None) -> np.ndarray:
    """Reads a picture as uint8 [H, W, channels], upright, transparency on white; ValueError names a broken file."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file) if file.format == "JPEG" else file
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    return pixels if size is None else fit(pixels, size)


def _header(path: Path) -> tuple[int, int, bool]:
    """Height, width and greyness of a picture, from its header alone."""
    from PIL import ExifTags, Image

    try:
        with Image.open(path) as file:
            width, height, mode = *file.size, file.mode
            # Only photographs are turned: asking a PNG for its orientation would decode it.
            rotated = file.format == "JPEG" and file.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            grey = mode in GREY_MODES and not file.has_transparency_data
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error
    if mode not in GREY_MODES + COLOR_MODES:
        raise ValueError(f"{path} is no 8-bit image (its mode is {mode})")
    return (width, height, grey) if rotated else (height, width, grey)


def _check_whole(paths: Sequence[Path]) -> None:
    """Raises a ValueError that names a picture that is cut short or, where all take little time to decode, damaged.

    In larger folders only those are decoded that lack the mark of their format's end.
    """
    few = sum(path.stat().st_size for path in paths) <= DECODED

    def check(path: Path) -> None:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 1024))
            ended = END[path.suffix.lower()] in file.read()
        if few or not ended:
            decode(path, 3, None)

    with ThreadPoolExecutor() as pool:  # PIL decodes beside other threads
        list(pool.map(check, paths))


def _find(root: Path) -> dict[str, tuple[Path, list[Path]]]:
    """Split → its folder and the paths of its pictures, relative to that and sorted; hidden files are left out."""
    if not root.is_dir():
        raise FileNotFoundError(f"no image folder {root}")
    bases = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if "train" not in bases or len(bases) == 1:
        bases = {"train": root}
    found = {}
    for split, base in bases.items():
        files = [path for path in base.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
        paths = [path.relative_to(base) for path in files]
        visible = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
        if not visible:
            raise FileNotFoundError(f"no {', '.join(SUFFIXES)} files in {base}")
        found[split] = base, sorted(visible, key=Path.as_posix)
    return found


def _classes(found: dict[str, tuple[Path, list[Path]]]) -> tuple[str, ...]:
    """The sub-folders that hold pictures, where there are two or more; () where there are not."""
    classes = sorted({path.parts[0] for _, paths in found.values() for path in paths if len(path.parts) > 1})
    if len(classes) < 2:
        return ()
    for base, paths in found.values():
        stray = [path for path in paths if len(path.parts) == 1]
        if stray:
            folders = ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
            raise ValueError(f"{base / stray[0]} lies in no class folder, while others lie in {folders}")
    return tuple(classes)


def load(directory: str, size: int | None, validation: float) -> Dataset:
    """The pictures of a folder: `image` uint8 [H, W, C], C = 1 where all are grey, else 3, `label` int32 if classed.

    Training pictures stand in a fixed random order, so that validation, taken from the end (see `num_held_out`) where
    the folder has no such split, is not of one class.

    Raises:
      FileNotFoundError: no such folder, or no picture in it.
      ValueError: pictures of different shapes and no `size`; a file that is broken, cut short or not of 8 bits; a stray
        picture.
    """
    found = _find(Path(directory).expanduser())
    classes = _classes(found)
    paths = {split: [base / path for path in names] for split, (base, names) in found.items()}
    labels = {
        split: np.array([classes.index(path.parts[0]) if classes else 0 for path in names], np.int32)
        for split, (_, names) in found.items()
    }
    headers = {path: _header(path) for split in paths for path in paths[split]}
    first, (height, width, _) = next(iter(headers.items()))
    for path, (other_height, other_width, _) in headers.items():
        if size is None and (other_height, other_width) != (height, width):
            raise ValueError(
                f"images differ in shape: {first} is {height} x {width}, {path} is {other_height} x {other_width}; "
                "pass --data.size to bring them to one"
            )
    _check_whole(list(headers))
    channels = 1 if all(grey for _, _, grey in headers.values()) else 3

    order = np.random.default_rng(0).permutation(len(paths["train"]))
    paths["train"], labels["train"] = [paths["train"][i] for i in order], labels["train"][order]
    if "validation" not in paths:
        cut = len(order) - num_held_out(len(order), validation)
        paths["train"], paths["validation"] = paths["train"][:cut], paths["train"][cut:]
        labels["train"], labels["validation"] = labels["train"][:cut], labels["train"][cut:]

    shape = (height, width, channels) if size is None else (size, size, channels)
    spec = Spec(
        shapes={"image": shape, "label": ()} if classes else {"image": shape},
        dtypes={"image": "uint8", "label": "int32"} if classes else {"image": "uint8"},
        counts={split: len(paths[split]) for split in SPLITS if paths.get(split)},
        names={"label": classes} if classes else {},
        sizes={"label": (len(classes),)} if classes else {},
    )

    def read(split: str, indices: np.ndarray, keys: tuple[str, ...]) -> Batch:
        spec.check(split, keys)
        batch: Batch = {}
        if "image" in keys:
            batch["image"] = np.empty((len(indices), *shape), np.uint8)
            for row, index in enumerate(indices):
                batch["image"][row] = decode(paths[split][index], channels, size)
        if "label" in keys:
            batch["label"] = labels[split][indices]
        return batch

    return Dataset(spec, read)
