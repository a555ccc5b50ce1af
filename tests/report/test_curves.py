import json
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxgen.report.curves import curves, is_log_scale, write_curves, write_rows


def test_a_rollback_replaces_what_came_after():
    rows = [{"step": s, "loss": 10.0 + s} for s in (1, 2, 3, 4)]
    rows += [{"step": s, "attempt": 1, "loss": 20.0 + s} for s in (2, 3)]
    rows += [{"step": 4, "attempt": 1, "fd/n=100": 5.0}]
    found = curves(rows)
    assert list(found) == ["loss", "fd/n=100"]
    np.testing.assert_array_equal(found["loss"], [[1, 2, 3], [11, 22, 23]])
    np.testing.assert_array_equal(found["fd/n=100"], [[4], [5]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 100.0], True), ([1.0, 20.0], False), ([-1.0, 100.0], False), ([0.0, 1.0], False), ([math.nan], False)],
)
def test_log_scale(values, expected):
    assert is_log_scale(np.array(values)) is expected


def test_picture_has_a_panel_for_every_metric(tmp_path):
    """Two rows of panels for four metrics, one for three: the picture's height says so."""
    heights = {}
    for num in (3, 4):
        values = [{f"m{i}": "nan" if s == 5 else math.exp(-s / 50) for i in range(num)} for s in range(300)]
        lines = [json.dumps({"step": s, **value}) + "\n" for s, value in enumerate(values)]
        (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"step": 30')
        write_curves(tmp_path / "metrics.jsonl", tmp_path / f"{num}.png")
        with Image.open(tmp_path / f"{num}.png") as picture:
            heights[num] = picture.height
            last_cell = np.asarray(picture.convert("L"))[picture.height * 3 // 5 : -30, picture.width * 3 // 4 :]
    assert heights[4] == 2 * heights[3]
    assert (last_cell == 255).all()  # four panels leave two cells of the second row empty


def test_rows_are_drawn_as_their_median(tmp_path):
    """A spectrum that falls: the curve's blue starts at the top left and ends at the bottom right."""
    write_rows(tmp_path / "rows.png", np.linspace(4, 1, 6)[None] * np.array([[0.9], [1.0], [1.0], [1.1]]), "spectrum")
    with Image.open(tmp_path / "rows.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = np.argwhere((pixels[..., 2] - pixels[..., 0] > 120) & (pixels[..., 0] < 60))
    first, last = blue[blue[:, 1].argmin()], blue[blue[:, 1].argmax()]
    assert first[0] < 0.3 * len(pixels) and last[0] > 0.7 * len(pixels)


def test_nothing_to_draw(tmp_path):
    write_curves(tmp_path / "absent.jsonl", tmp_path / "a.png")
    (tmp_path / "empty.jsonl").touch()
    write_curves(tmp_path / "empty.jsonl", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_the_package_is_cheap_to_import():
    code = (
        "import sys, jaxgen.report.curves, jaxgen.report.log, jaxgen.report.progress, jaxgen.report.samples\n"
        "print(sorted({'matplotlib', 'tensorboardX', 'PIL', 'rich', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
