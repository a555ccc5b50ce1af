"""TFDS: a set written by its own ArrayRecord writer comes back bit by bit, without TensorFlow and without a network."""

import io
import json
import shutil
import socket
import sys

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import Images, batch_at

tfds = pytest.importorskip("tensorflow_datasets")

PICTURES = np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3), np.uint8)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt to connect fails the test."""

    def refuse(*args):
        raise AssertionError(f"a connection to {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def png(pixels: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


def prepare(directory, name: str, features, splits: dict[str, list[dict]]) -> None:
    """Writes a data set in the ArrayRecord format, its code unknown to the reader."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: enumerate(examples) for split, examples in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Builder.name = name
    Builder(data_dir=directory, file_format="array_record").download_and_prepare()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    label = tfds.features.ClassLabel(names=["cat", "dog", "owl"])
    encoded = [{"image": png(x), "label": i % 3, "title": f"no. {i}"} for i, x in enumerate(PICTURES)]
    features = {"image": tfds.features.Image(shape=(8, 6, 3)), "label": label, "title": tfds.features.Text()}
    prepare(directory, "tiny_pictures", features, {"train": encoded[:15], "test": encoded[15:]})

    tensor = {"pixels": tfds.features.Tensor(shape=(8, 6, 3), dtype=np.uint8)}
    raw = [{"pixels": x} for x in PICTURES]
    prepare(directory, "raw_pictures", tensor, {"train": raw[:10], "validation": raw[10:]})

    mixed = [{"image": png(x[: 4 + i % 3])} for i, x in enumerate(PICTURES)]
    prepare(directory, "mixed_pictures", {"image": tfds.features.Image()}, {"train": mixed})

    prepare(directory, "only_numbers", {"x": np.float32}, {"train": [{"x": 1.0}]})
    prepare(directory, "only_test", tensor, {"test": raw[:3]})
    return directory


def load(folder, name, **options):
    return Images(name=f"tfds:{name}", data_dir=str(folder), **options).load()


def everything(data, split, keys):
    return data.read(split, np.arange(data.spec.count(split)), keys)


def test_images_and_labels_come_back_exactly(folder):
    data = load(folder, "tiny_pictures:1.0.0", validation=4)
    assert data.spec.counts == {"train": 11, "validation": 4, "test": 5}
    assert data.spec.shapes == {"image": (8, 6, 3), "label": ()}
    assert data.spec.dtypes == {"image": "uint8", "label": "int32"}
    assert data.spec.names == {"label": ("cat", "dog", "owl")} and data.spec.sizes == {"label": (3,)}
    # TFDS shuffles within a split when it writes; the label tells which picture an image is, up to multiples of three.
    for split, own in (("train", PICTURES[:15]), ("test", PICTURES[15:])):
        parts = ("train", "validation") if split == "train" else ("test",)
        batches = [everything(data, part, ("image", "label")) for part in parts]
        images, labels = (np.concatenate([batch[key] for batch in batches]) for key in ("image", "label"))
        place = {x.tobytes(): i for i, x in enumerate(PICTURES)}
        found = np.array([place[x.tobytes()] for x in images])
        assert sorted(found) == [place[x.tobytes()] for x in own]
        np.testing.assert_array_equal(labels, found % 3)
    assert "tensorflow" not in sys.modules


def test_random_access_reads_single_rows_and_keys(folder):
    data = load(folder, "tiny_pictures")
    options = dict(seed=0, step=3, batch_size=6)
    whole = batch_at(data, **options, keys=["image", "label"])
    part = batch_at(data, **options, keys=["image"], rows=slice(2, 4))
    np.testing.assert_array_equal(part["image"], whole["image"][2:4])
    np.testing.assert_array_equal(batch_at(data, **options, keys=["label"])["label"], whole["label"])
    assert batch_at(data, **options, keys=["image"], rows=slice(2, 2))["image"].shape == (0, 8, 6, 3)
    with pytest.raises(ValueError, match="no batch key 'title'; there are: image, label"):
        batch_at(data, **options, keys=["title"])


def test_a_tensor_is_an_image_and_own_validation_is_used(folder):
    data = load(folder, "raw_pictures")
    assert data.spec.counts == {"train": 10, "validation": 10} and set(data.spec.shapes) == {"image"}
    found = everything(data, "validation", ("image",))["image"]
    assert sorted(x.tobytes() for x in found) == sorted(x.tobytes() for x in PICTURES[10:])


def test_images_of_different_sizes_need_a_size(folder):
    with pytest.raises(ValueError, match="'mixed_pictures' differ in size: pass --data.size"):
        load(folder, "mixed_pictures")
    data = load(folder, "mixed_pictures", size=4)
    assert everything(data, "train", ("image",))["image"].shape == (19, 4, 4, 3)


def test_sets_without_images_or_train(folder):
    with pytest.raises(ValueError, match="needs a uint8 image called 'image', or one only; it has none among x"):
        load(folder, "only_numbers")
    with pytest.raises(ValueError, match="no split 'train'; it has: test"):
        load(folder, "only_test")


def test_a_set_that_is_not_on_disk_names_the_command(folder):
    with pytest.raises(FileNotFoundError) as error:
        load(folder, "mnist")
    assert "'mnist'" in str(error.value) and str(folder) in str(error.value)
    assert f"tfds.builder('mnist', data_dir='{folder}', file_format='array_record').download_and_prepare()" in str(
        error.value
    )


def test_unknown_sets_versions_and_configs(folder):
    with pytest.raises(FileNotFoundError, match="knows no data set 'mnits' \\(did you mean 'mnist'\\?\\), and none"):
        load(folder, "mnits")
    with pytest.raises(ValueError, match="'kaggle:mnist' has a namespace"):
        load(folder, "kaggle:mnist")
    with pytest.raises(ValueError, match="cannot open the TFDS data set 'mnist:9.9.9'"):
        load(folder, "mnist:9.9.9")
    with pytest.raises(ValueError, match="cannot open the TFDS data set 'mnist/nothing'"):
        load(folder, "mnist/nothing")


def test_a_set_prepared_as_tfrecord_says_so(folder, tmp_path):
    shutil.copytree(folder / "tiny_pictures", tmp_path / "tiny_pictures")
    info = tmp_path / "tiny_pictures" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="'tiny_pictures' is prepared as tfrecord in .*no random access"):
        load(tmp_path, "tiny_pictures")


@pytest.mark.parametrize("harm", ["truncated", "empty", "missing"])
def test_a_file_that_is_cut_short_is_noticed_when_the_set_is_opened(folder, tmp_path, harm):
    shutil.copytree(folder / "tiny_pictures", tmp_path / "tiny_pictures")
    (path,) = tmp_path.rglob("*test.array_record*")
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 70_000 if harm == "truncated" else 0])
    with pytest.raises(
        ValueError, match=f"cannot read the TFDS data set 'tiny_pictures' .*{tmp_path}.*prepare it anew"
    ):
        load(tmp_path, "tiny_pictures")


def test_a_flipped_bit_is_noticed_when_it_is_read(folder, tmp_path):
    shutil.copytree(folder / "tiny_pictures", tmp_path / "tiny_pictures")
    (path,) = tmp_path.rglob("*train.array_record*")
    data = bytearray(path.read_bytes())
    data[3000] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match="cannot read the TFDS data set 'tiny_pictures' .*hash mismatch"):
        everything(load(tmp_path, "tiny_pictures"), "train", ("image",))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_damaged_description_is_refused(folder, tmp_path, name):
    shutil.copytree(folder / "tiny_pictures", tmp_path / "tiny_pictures")
    (path,) = tmp_path.rglob(name)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="cannot open the TFDS data set 'tiny_pictures'"):
        load(tmp_path, "tiny_pictures")


def test_a_description_does_not_need_the_data(folder, tmp_path):
    """On disk it is that of the data; elsewhere TFDS's code has all but the numbers of examples."""
    for name in ("tiny_pictures", "raw_pictures"):
        assert Images(f"tfds:{name}", data_dir=str(folder)).spec() == load(folder, name).spec
    spec = Images("tfds:cifar10", data_dir=str(tmp_path)).spec()
    assert spec.shapes == {"image": (32, 32, 3), "label": ()} and spec.sizes == {"label": (10,)} and spec.counts == {}
    with pytest.raises(ValueError, match="pass --data.size"):
        Images("tfds:imagenet2012", data_dir=str(tmp_path)).spec()
    assert Images("tfds:imagenet2012", size=64, data_dir=str(tmp_path)).spec().shape("image") == (64, 64, 3)
    assert not list(tmp_path.iterdir())
