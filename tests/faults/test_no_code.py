"""What is loaded is data: no run, checkpoint, data set or reader can bring code that is executed."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

import harness
import toy_methods
from jaxgen import runs, trained
from jaxgen.data import bundled, folder
from jaxgen.interop import word2vec
from jaxgen.metrics import readers

toy_methods.register()
ROOT = Path(__file__).parents[2]
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "torch"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
MODULES = {"runpy", "importlib", "code", "codeop"}
# A Python file that the user names is code on purpose: the config of `train`, the function of `evaluate --features`.
NAMED_BY_THE_USER = {"jaxgen/config.py": {"runpy"}, "jaxgen/metrics/readers.py": {"importlib.util"}}
HARMLESS = {"importlib.resources"}  # the files in the package


def calls_of(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def offences(source: str, name: str) -> list[str]:
    """What in a module could run what it loads."""
    tree = ast.parse(source)
    found = []
    for module in imported(tree):
        top = module.partition(".")[0]
        allowed = module in NAMED_BY_THE_USER.get(name, ()) or module in HARMLESS
        if top in UNPICKLERS or (top in MODULES and not allowed):
            found.append(f"imports {module}")
    for call in calls_of(tree):
        function = call.func
        if isinstance(function, ast.Name) and function.id in RUNNERS:
            found.append(f"calls {function.id}")
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        pickles = keywords.get("allow_pickle")
        if pickles is not None and not (isinstance(pickles, ast.Constant) and pickles.value is False):
            found.append("allows pickles")
        loads = (
            isinstance(function, ast.Attribute)
            and function.attr in ("load", "fromfile")
            and (isinstance(function.value, ast.Name) and function.value.id in ("np", "numpy", "jnp"))
        )
        if loads and pickles is None:
            found.append(f"{ast.unparse(function)} without allow_pickle=False")
    return found


def test_no_module_unpickles_or_evaluates():
    paths = [*sorted((ROOT / "jaxgen").rglob("*.py")), ROOT / "train.py", ROOT / "sample.py"]
    assert len(paths) > 90
    found = {name: offences(path.read_text(), name) for path in paths if (name := path.relative_to(ROOT).as_posix())}
    assert {name: bad for name, bad in found.items() if bad} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import importlib.util",
        "import runpy",
        "x = eval(text)",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert offences(source, "jaxgen/any.py")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def exploded(tmp_path):
    """The file that a bomb would create."""
    path = tmp_path / "exploded"
    yield path
    assert not path.exists()


def bombs(path: Path) -> dict[str, bytes]:
    """The same attack as a pickle, as an array of objects, and in an archive of arrays."""
    array = np.empty(2, object)
    array[:] = Bomb(path)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, array, allow_pickle=True)
    np.savez(npz, train_image=array, train_label=array, allow_pickle=True)
    return {"pickle": pickle.dumps(Bomb(path)), "npy": npy.getvalue(), "npz": npz.getvalue()}


def test_the_bombs_go_off_where_pickles_are_allowed(tmp_path):
    for kind, data in bombs(tmp_path / "exploded").items():
        if kind == "pickle":
            pickle.loads(data)
        else:
            found = np.load(io.BytesIO(data), allow_pickle=True)
            if kind == "npz":
                found["train_image"]
        (tmp_path / "exploded").rmdir()


@pytest.mark.parametrize("kind", ["pickle", "npy", "npz"])
def test_no_file_that_is_read_goes_off(kind, tmp_path, exploded, monkeypatch):
    data = bombs(exploded)[kind]
    (tmp_path / "files").mkdir()
    for name in ("digits.npz", "speeches.jsonl.xz"):
        (tmp_path / "files" / name).write_bytes(data)
    monkeypatch.setattr(bundled, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="is damaged"):
        bundled._arrays.__wrapped__("digits")
    with pytest.raises(ValueError, match="is damaged"):
        bundled._lines.__wrapped__("speeches")
    for name in ("picture.png", "vectors.bin", "reader.safetensors", "config.json"):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError):
        folder.decode(tmp_path / "picture.png", 3, None)
    with pytest.raises(ValueError):
        word2vec.read_word2vec(tmp_path / "vectors.bin")
    with pytest.raises(Exception, match="(?i)header"):
        readers.load("any", tmp_path / "reader.safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        trained.open_run(tmp_path)


ATTACK = "__import__('os').mkdir({!r})"


@pytest.mark.parametrize("place", ["method.name", "data.name", "data.config.name", "train.best_metric", "init_from"])
def test_a_config_json_is_never_evaluated(place, tmp_path, exploded):
    tree = harness.document(toy_methods.EXPERIMENTS["toy_kmeans"])
    attack = ATTACK.format(str(exploded))
    *parents, last = place.split(".")
    holder = tree
    for name in parents:
        holder = holder[name]
    holder[last] = (
        attack if place != "init_from" else {attack: attack, "py/object": attack, "!!python/name": "os.mkdir"}
    )
    (tmp_path / runs.CONFIG).write_text(json.dumps(tree))
    with contextlib.suppress(ValueError):  # refused, or taken for the plain string that it is
        trained.open_run(tmp_path).config.data.load()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_is_never_unpickled(tmp_path, exploded):
    experiment, workdir = toy_methods.EXPERIMENTS["toy_kmeans"], tmp_path / "run"
    harness.train(experiment, workdir, steps=2, eval_every=0, sample_every=0)
    whole = {path: path.read_bytes() for path in (workdir / "checkpoints" / "2").rglob("*") if path.is_file()}
    for data in (bombs(exploded)["pickle"], ATTACK.format(str(exploded)).encode()):
        for path, own in whole.items():
            path.write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    harness.saved_state(experiment, workdir)
                except ValueError as error:
                    assert "no whole checkpoint" in str(error)
            path.write_bytes(own)
    harness.saved_state(experiment, workdir)
