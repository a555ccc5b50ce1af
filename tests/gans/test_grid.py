"""The robustness grid: every cell can be built, one is run, and the sheet and the table hold what they should."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxgen import catalog
from jaxgen.gans import grid


def test_every_cell_is_a_method_of_its_own():
    spec, shapes = grid.cell("dcgan", "baseline", 1, 8).data.load().spec, {}
    for training in grid.TRAINING:
        for networks in grid.NETWORKS:
            experiment = grid.cell(training, networks, 10, 8)
            method = catalog.make(experiment.method, spec)
            batch = spec.batch(experiment.train.batch_size, method.reads)
            state = jax.eval_shape(method.init, jax.random.key(0), batch)
            if networks != "deep ResNet":  # whose trace takes longest
                jax.eval_shape(method.step, state, batch, jax.random.key(1))
            if training == "wgan_gp":
                shapes[networks] = sum(x.size for x in jax.tree.leaves((state["gen"], state["critic"])))
    assert len(grid.TRAINING) * len(grid.NETWORKS) == 28
    assert len(set(shapes.values())) == len(shapes) - 1  # tanh has as many numbers as the baseline


@pytest.mark.slow
def test_one_cell_is_trained_and_goes_on(tmp_path):
    experiment = grid.cell("wgan_clip", "4-layer ReLU MLP as G", 2, 8)
    images = grid.run_cell(experiment, tmp_path / "cell", 20)
    np.testing.assert_array_equal(images, grid.run_cell(experiment, tmp_path / "cell", 20))  # trained once
    assert images.shape == (20, 28, 28, 1)
    wild = dataclasses.replace(experiment.method.gen_optimizer, learning_rate=1e30)
    experiment = dataclasses.replace(experiment, method=dataclasses.replace(experiment.method, gen_optimizer=wild))
    assert grid.run_cell(experiment, tmp_path / "wild", 20) is None


def test_where_all_diverged_there_is_no_sheet():
    with pytest.raises(ValueError, match="all runs diverged"):
        grid.sheet({name: dict.fromkeys(grid.TRAINING) for name in grid.NETWORKS})


def test_the_sheet_has_black_cells_for_runs_that_diverged_and_the_table_says_so():
    white = np.full((16, 28, 28, 1), 255, np.uint8)
    pictures = {name: {t: None if t == "lsgan" else white for t in grid.TRAINING} for name in grid.NETWORKS}
    sheet = grid.sheet(pictures)
    side = 4 * 29 + 1
    assert sheet.shape == (7 * side, 4 * side, 3)
    cells = sheet.reshape(7, side, 4, side, 3).min((1, 3, 4))
    np.testing.assert_array_equal(cells, np.broadcast_to([255, 0, 255, 255], (7, 4)))
    good = {"fd": 100.4, "classes": 0.9, "pass": True}
    results = {
        name: {t: grid.judge(None, None, 0.0) if t == "lsgan" else good for t in grid.TRAINING} for name in pictures
    }
    lines = grid.table(results, 332.0).splitlines()
    assert len(lines) == 9
    assert lines[2] == "| baseline | pass: 100, 90% | fail: diverged | pass: 100, 90% | pass: 100, 90% |"
