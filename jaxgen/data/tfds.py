"""Any image data set of TensorFlow Datasets, prepared as ArrayRecord, without TensorFlow and without a network.

The image is the feature called `image` or the only one of its kind, the label likewise. Preparing a set downloads it,
and needs TensorFlow for most sets; reading it needs neither.
"""

from __future__ import annotations

import errno
import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.config import closest
from jaxgen.data.dataset import Batch, Dataset, Spec, num_held_out
from jaxgen.data.folder import fit

SPLITS = ("train", "validation", "test")


def _command(name: str, directory: str) -> str:
    """The shell command that prepares a data set."""
    return (
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{directory}', file_format='array_record').download_and_prepare()\""
    )


def _tfds() -> Any:
    """The tensorflow_datasets module, imported when it is first used."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError("reading tfds: data needs `pip install tensorflow-datasets`") from error
    return tensorflow_datasets


def _parse_error() -> type[Exception]:
    """What protobuf raises of a damaged dataset_info.json."""
    from google.protobuf.json_format import ParseError

    return ParseError


def _directory(data_dir: str | None) -> str:
    return str(Path(data_dir or _tfds().core.constants.DATA_DIR).expanduser())


def _builder(name: str, data_dir: str | None) -> Any:
    """TFDS's builder of a data set, on disk or not."""
    tfds, directory = _tfds(), _directory(data_dir)
    if re.match(r"\w+:[A-Za-z]", name):  # of the community, whose code TFDS would fetch and run
        raise ValueError(f"the TFDS data set {name!r} has a namespace; only those of TFDS and prepared ones are read")
    try:
        return tfds.builder(name, data_dir=directory)
    except tfds.core.DatasetNotFoundError:
        hint = closest(repr(name), map(repr, tfds.list_builders(with_community_datasets=False)))
        hint = hint if "did you mean" in hint else ""  # rather than the hundreds of names that there are
        raise FileNotFoundError(
            f"TFDS knows no data set {name!r}{hint}, and none of that name lies in {directory}; "
            f"one of its own is prepared by: {_command('NAME', directory)}"
        ) from None
    except (AssertionError, ValueError, _parse_error()) as error:  # an unknown version or config, a damaged description
        raise ValueError(f"cannot open the TFDS data set {name!r}: {error}") from error


def _on_disk(name: str, data_dir: str | None) -> Any:
    """TFDS's builder of a data set that lies on disk in a format with random access."""
    builder, directory = _builder(name, data_dir), _directory(data_dir)
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"the TFDS data set {name!r} is not in {directory} (looked for {builder.data_path}); prepare it once, "
            f"with a network and TensorFlow, or name its folder by --data.data-dir: {_command(name, directory)}"
        )
    try:
        builder.as_data_source(next(iter(builder.info.splits)))
    except NotImplementedError:
        raise ValueError(
            f"the TFDS data set {name!r} is prepared as {builder.info.file_format.value} in {builder.data_path}, which "
            f"has no random access; delete that or choose another --data.data-dir, then: {_command(name, directory)}"
        ) from None
    return builder


def _image_key(name: str, features: Any) -> str:
    tfds = _tfds()

    def is_image(feature: Any) -> bool:
        tensor = type(feature) is tfds.features.Tensor and len(feature.shape) == 3
        return (isinstance(feature, tfds.features.Image) or tensor) and feature.np_dtype == np.uint8

    keys = [key for key, feature in features.items() if is_image(feature)]
    if "image" in keys:
        return "image"
    if len(keys) != 1:
        found = ", ".join(keys) or f"none among {', '.join(features)}"
        raise ValueError(f"the TFDS data set {name!r} needs a uint8 image called 'image', or one only; it has {found}")
    return keys[0]


def _label_key(features: Any) -> str | None:
    tfds = _tfds()
    keys = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    return "label" if "label" in keys else keys[0] if len(keys) == 1 else None


def _describe(
    name: str, builder: Any, size: int | None, validation: float
) -> tuple[Spec, dict[str, tuple[str, int, int]]]:
    """The spec, and split → where it comes from: TFDS's split, the first example, the number of examples."""
    features, own = builder.info.features, {split: info.num_examples for split, info in builder.info.splits.items()}
    image_key, label_key = _image_key(name, features), _label_key(features)
    height, width, channels = features[image_key].shape
    if size is None and None in (height, width):
        raise ValueError(f"images of the TFDS data set {name!r} differ in size: pass --data.size to bring them to one")
    shape = (size or height, size or width, channels or 3)
    parts = {split: (split, 0, own[split]) for split in SPLITS if own.get(split)}
    if "train" in parts and "validation" not in parts:
        num = num_held_out(own["train"], validation)
        parts["train"] = ("train", 0, own["train"] - num)
        if num:
            parts["validation"] = ("train", own["train"] - num, num)
    spec = Spec(
        shapes={"image": shape, "label": ()} if label_key else {"image": shape},
        dtypes={"image": "uint8", "label": "int32"} if label_key else {"image": "uint8"},
        counts={split: parts[split][2] for split in SPLITS if split in parts},
        names={"label": tuple(features[label_key].names)} if label_key else {},
        sizes={"label": (features[label_key].num_classes,)} if label_key else {},
    )
    return spec, parts


def spec_of(name: str, size: int | None, validation: float, data_dir: str | None) -> Spec:
    """`load(…).spec`, and of a set that is not on disk what its code says of it: all but the numbers of examples.

    Raises:
      FileNotFoundError: TFDS knows no such set.
      ValueError, ImportError: see `load`.
    """
    return _describe(name, _builder(name, data_dir), size, validation)[0]


def load(name: str, size: int | None, validation: float, data_dir: str | None) -> Dataset:
    """The data set `name` as `image` uint8 [H, W, C] and, where it has class labels, `label` int32.

    Its own validation and test splits are used; without the former, `validation` (see `num_held_out`) is taken from the
    end of train.

    Args:
      name: NAME[/CONFIG][:VERSION], as TFDS spells it.
      size: the side to which images are resized and cropped; None leaves them alone.
      validation: a fraction, or a number of examples.
      data_dir: where the data sets lie; None for TFDS's default.

    Raises:
      FileNotFoundError: it is not prepared on disk; the message has the command that does it.
      ValueError: an unknown version or config, a format without random access, no image or no training split, images
        without a fixed shape and no `size`, or a file that is cut short (the last example of each is read).
      ImportError: TFDS is not installed.
    """
    builder = _on_disk(name, data_dir)
    if "train" not in builder.info.splits:
        raise ValueError(f"the TFDS data set {name!r} has no split 'train'; it has: {', '.join(builder.info.splits)}")
    spec, parts = _describe(name, builder, size, validation)
    features = builder.info.features
    image_key, label_key = _image_key(name, features), _label_key(features)

    @functools.cache
    def source(split: str, with_image: bool) -> Any:
        tfds = _tfds()
        skipped = [key for key in features if isinstance(features[key], tfds.features.Image)]
        if with_image:
            skipped = [key for key in skipped if key != image_key]
        return builder.as_data_source(split, decoders={key: tfds.decode.SkipDecoding() for key in skipped} or None)

    def read(split: str, indices: np.ndarray, keys: tuple[str, ...]) -> Batch:
        spec.check(split, keys)
        batch = {key: np.empty((len(indices), *spec.shapes[key]), spec.dtypes[key]) for key in keys}
        origin, start, _ = parts[split]
        places = [start + int(index) for index in indices]
        try:
            examples = source(origin, "image" in keys).__getitems__(places)
        except (RuntimeError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
                raise  # a disk or network that fails now may be back later
            raise ValueError(
                f"cannot read the TFDS data set {name!r} ({builder.data_path}, split {origin!r}): {error}; delete that "
                f"folder, and prepare it anew: {_command(name, str(builder.data_dir_root))}"
            ) from error
        for row, example in enumerate(examples):
            if "image" in keys:
                batch["image"][row] = example[image_key] if size is None else fit(example[image_key], size)
            if "label" in keys:
                batch["label"][row] = example[label_key]
        return batch

    for split, (origin, start, count) in parts.items():
        last = np.cumsum(builder.info.splits[origin].shard_lengths) - 1 - start  # of each file
        read(split, last[(0 <= last) & (last < count)], ("image",))
    return Dataset(spec, read)
