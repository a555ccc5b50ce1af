"""The stream: permutations, independence of processes and steps, augmentation, evaluation batches, and the spec."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxgen.data import Dataset, Images, Spec, batch_at, evaluation_batch, in_memory, num_evaluation_batches
from jaxgen.data.dataset import num_held_out
from jaxgen.data.images import flip

COUNT, BATCH = 23, 6


def numbers(count: int = COUNT) -> Dataset:
    """Examples that say their own index, with images that are not their own mirror images."""
    index = np.arange(count, dtype=np.int32)
    image = np.broadcast_to(index[:, None, None, None] * 4 + np.arange(4)[:, None], (count, 2, 4, 1)).astype(np.uint8)
    return in_memory({"train": {"index": index, "image": image}, "test": {"index": index[:7], "image": image[:7]}})


def stream(data: Dataset, num: int, seed: int = 0, batch_size: int = BATCH) -> np.ndarray:
    batches = [batch_at(data, seed=seed, step=s, batch_size=batch_size, keys=["index"]) for s in range(num)]
    return np.concatenate([batch["index"] for batch in batches])


def test_every_epoch_is_another_permutation():
    epochs = stream(numbers(), BATCH * 4)[: COUNT * 4].reshape(4, COUNT)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))
    assert len({epoch.tobytes() for epoch in epochs}) == 4


def test_stream_does_not_depend_on_the_batch_size():
    np.testing.assert_array_equal(stream(numbers(), 8, batch_size=3), stream(numbers(), 2, batch_size=12))


def test_batches_are_a_function_of_seed_and_step():
    np.testing.assert_array_equal(stream(numbers(), 9), stream(numbers(), 9))
    # Neighbouring seeds share no epoch, not even a shifted one.
    epochs = {stream(numbers(), COUNT, seed)[COUNT * e :][:COUNT].tobytes() for seed in range(4) for e in range(4)}
    assert len(epochs) == 16


def test_another_process_reads_the_same_batch():
    program = (
        "import numpy as np; from jaxgen.data import Images, batch_at;"
        "data = Images(name='digits', flip=True).load();"
        "batch = batch_at(data, seed=3, step=50, batch_size=40, keys=['image'], rows=slice(10, 14));"
        "print(batch['image'].tobytes().hex())"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    data = Images(name="digits", flip=True).load()
    here = batch_at(data, seed=3, step=50, batch_size=40, keys=["image"])["image"][10:14]
    assert out.strip() == here.tobytes().hex()


@pytest.mark.parametrize("augment", [None, flip])
@pytest.mark.parametrize(
    "parts",
    [
        [slice(0, 3), slice(3, 6)],
        [slice(0, 1), slice(1, 1), slice(1, 6)],
        [np.array([5, 0]), np.array([1]), np.array([4, 3, 2])],
    ],
)
def test_rows_of_any_partition_make_the_whole_batch(parts, augment):
    data = numbers()._replace(augment=augment)
    for step in range(6):  # over the end of an epoch
        options = dict(seed=1, step=step, batch_size=BATCH, keys=["index", "image"])
        whole = batch_at(data, **options)
        for rows in parts:
            part = batch_at(data, **options, rows=rows)
            for key in whole:
                np.testing.assert_array_equal(part[key], whole[key][rows])


def test_rows_outside_the_batch_are_refused():
    with pytest.raises(IndexError):
        batch_at(numbers(), seed=0, step=0, batch_size=4, keys=["index"], rows=np.array([4]))


def test_only_the_asked_keys_are_read():
    asked = []
    data = numbers()
    spied = data._replace(read=lambda split, indices, keys: asked.append(keys) or data.read(split, indices, keys))
    assert set(batch_at(spied, seed=0, step=0, batch_size=4, keys=["index"])) == {"index"}
    assert asked == [("index",)]


def test_flip_mirrors_about_half_anew_every_epoch():
    data = numbers(1000)
    flipped = data._replace(augment=flip)
    seen = []
    for epoch in range(2):
        options = dict(seed=5, step=epoch, batch_size=1000, keys=["index", "image"])
        plain, changed = batch_at(data, **options), batch_at(flipped, **options)
        np.testing.assert_array_equal(plain["index"], changed["index"])
        mirrored = (changed["image"] == plain["image"][:, :, ::-1]).all((1, 2, 3))
        same = (changed["image"] == plain["image"]).all((1, 2, 3))
        assert (mirrored ^ same).all()
        assert abs(mirrored.mean() - 0.5) < 0.08  # five standard deviations of a fair coin
        seen.append(mirrored[np.argsort(plain["index"])])
    assert 0.4 < (seen[0] == seen[1]).mean() < 0.6


def test_flip_mirrors_the_images_of_an_example_together_and_nothing_else():
    batch = {
        "source": np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1),
        "target": np.arange(12, 24, dtype=np.uint8).reshape(2, 2, 3, 1),
        "attribute": np.array([[1, 2], [3, 4]]),
    }
    out = flip(batch, np.array([[0.2, 0, 0, 0], [0.7, 0, 0, 0]]))
    for key in ("source", "target"):
        np.testing.assert_array_equal(out[key][0], np.flip(batch[key][0], axis=1))
        np.testing.assert_array_equal(out[key][1], batch[key][1])
    np.testing.assert_array_equal(out["attribute"], batch["attribute"])


def test_only_training_batches_are_augmented():
    data = numbers()._replace(augment=flip)
    options = dict(seed=0, step=0, batch_size=7, keys=["index", "image"], split="test")
    np.testing.assert_array_equal(
        batch_at(data, **options)["image"][:, 0, 0, 0] // 4, batch_at(data, **options)["index"]
    )
    evaluated = evaluation_batch(data, "train", 0, COUNT, ["image"])["image"]
    np.testing.assert_array_equal(evaluated, numbers().read("train", np.arange(COUNT), ("image",))["image"])


def test_evaluation_is_in_order_padded_and_masked():
    data = numbers()
    assert num_evaluation_batches(data, "test", 3) == 3
    assert num_evaluation_batches(data, "test", 7) == 1
    batches = [evaluation_batch(data, "test", i, 3, ["index"]) for i in range(3)]
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]
    assert [batch["valid"].tolist() for batch in batches] == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    assert batches[0]["valid"].dtype == np.float32
    last = evaluation_batch(data, "test", 2, 3, ["index"], rows=slice(1, 3))
    assert last["valid"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="no evaluation batch 3: split 'test' has 3 of size 3"):
        evaluation_batch(data, "test", 3, 3, ["index"])


def test_unknown_splits_and_keys_name_what_there_is():
    data = numbers()
    with pytest.raises(ValueError, match="no split 'tets' \\(did you mean test"):
        num_evaluation_batches(data, "tets", 3)
    with pytest.raises(ValueError, match="no split 'validation'; there are: train, test"):
        batch_at(data, seed=0, step=0, batch_size=2, keys=["index"], split="validation")
    with pytest.raises(ValueError, match="no batch key 'images' \\(did you mean image"):
        batch_at(data, seed=0, step=0, batch_size=2, keys=["images"])
    with pytest.raises(ValueError, match="no batch key 'label'"):
        evaluation_batch(data, "test", 0, 2, ["label"])
    with pytest.raises(ValueError, match="no batch key 'label'"):
        data.spec.batch(2, ["label"])
    with pytest.raises(ValueError, match="no split 'dev'"):
        data.read("dev", np.arange(2), ("index",))


@pytest.mark.parametrize("name", ["faces", "digits", "emoji"])
def test_spec_survives_json(name):
    spec = Images(name=name).load().spec
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("name", ["faces", "fashion", "digits", "emoji"])
def test_spec_describes_the_batches(name):
    data = Images(name=name, flip=True).load()
    keys = tuple(data.spec.shapes)
    batch = batch_at(data, seed=0, step=0, batch_size=5, keys=keys)
    expected = data.spec.batch(5, keys)
    assert {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in batch.items()} == expected


@pytest.mark.parametrize(
    ("count", "validation", "held"),
    [(100, 0.05, 5), (3, 0.05, 1), (1, 0.05, 0), (100, 0, 0), (100, 7, 7), (3, 0.99, 2)],
)
def test_number_of_held_out_examples(count, validation, held):
    assert num_held_out(count, validation) == held


@pytest.mark.parametrize("validation", [-0.1, 10, 2.5, float("nan")])
def test_impossible_validation_sizes_are_refused(validation):
    with pytest.raises(ValueError, match="neither a fraction in"):
        num_held_out(10, validation)


def test_importing_the_package_is_cheap():
    program = (
        "import sys; import jaxgen.data;"
        "print([m for m in ('grain', 'tensorflow_datasets', 'PIL', 'tensorflow') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.strip() == "[]"
