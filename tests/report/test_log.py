import json
import math
import struct
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.report.log import MetricsLog, read_metrics, trim


def events(folder):
    """The events of a folder's TensorBoard files, read as the TFRecord format says: length, crc, bytes, crc."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_lines(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"loss": jnp.float32(0.5), "critic/gap": np.float64(2)})
        log.write(2, {"loss": 0.25}, attempt=1)
        assert (tmp_path / "metrics.jsonl").read_text() == (  # written out before the log is closed
            '{"step": 1, "loss": 0.5, "critic/gap": 2.0}\n{"step": 2, "attempt": 1, "loss": 0.25}\n'
        )


def test_non_finite_values_are_strict_json_and_come_back(tmp_path):
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}
    with MetricsLog(tmp_path) as log:
        log.write(1, values)
    text = (tmp_path / "metrics.jsonl").read_text()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict == {"step": 1, "a": "nan", "b": "inf", "c": "-inf", "d": 1.0}
    np.testing.assert_equal(read_metrics(tmp_path / "metrics.jsonl"), [{"step": 1, **values}])


def test_timing_is_no_metric_and_is_kept(tmp_path):
    path, timing = tmp_path / "metrics.jsonl", {"step_time": 0.5, "data_wait": 0.1, "mfu": 0.4}
    with MetricsLog(tmp_path) as log:
        for step in (1, 2):
            log.write(step, {"loss": 1.0, **timing})
    trim(path, 1)
    assert read_metrics(path) == [{"step": 1, "loss": 1.0}]
    assert read_metrics(path, timing=True) == [{"step": 1, "loss": 1.0, **timing}]


def test_every_tear_of_the_last_line_is_survived(tmp_path):
    """A kill may cut the last line after any byte: the lines before it are read, and appended ones stay whole."""
    path = tmp_path / "metrics.jsonl"
    first, last = b'{"step": 1, "loss": 0.5}\n', b'{"step": 2, "loss": 0.25}\n'
    for cut in range(len(last) + 1):
        path.write_bytes(first + last[:cut])
        whole = [{"step": 1, "loss": 0.5}] + [{"step": 2, "loss": 0.25}] * (cut >= len(last) - 1)
        assert read_metrics(path) == whole
        trim(path, 10)
        assert path.read_bytes() == first + last * (len(whole) - 1)


def test_a_log_opened_on_a_torn_line_appends_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    with MetricsLog(tmp_path) as log:
        log.write(2, {"loss": 0.25})
    assert read_metrics(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_damage_inside_is_not_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\nnoise\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2 is no JSON object with a step and numbers: b'noise'"):
        read_metrics(path)
    for line in (
        b"[]",
        b"3",
        b'{"stfp": 2}',
        b'{"step": 2, "loss": null}',
        b'{"step": 2, "loss": "x"}',
        b"\xff",
        b"[" * 9999,
    ):
        path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
        with pytest.raises(ValueError, match="line 2 is no JSON object with a step and numbers"):
            read_metrics(path)


def test_trim_drops_what_is_computed_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": math.nan},  # the failure that raised the attempt
        {"step": 1, "attempt": 1, "loss": 1.0},
        {"step": 2, "attempt": 1, "loss": 0.5},
        {"step": 3, "attempt": 2, "loss": 0.25},
    ]
    with MetricsLog(tmp_path) as log:
        for row in rows:
            log.write(row["step"], {"loss": row["loss"]}, row.get("attempt", 0))
    before = path.read_bytes()
    trim(path, 3)
    assert path.read_bytes() == before
    trim(path, 1, attempt=1)
    np.testing.assert_equal(read_metrics(path), rows[:3])
    trim(path, 0)
    assert path.read_bytes() == b""
    trim(tmp_path / "absent.jsonl", 0)
    assert not (tmp_path / "absent.jsonl").exists()


def test_trim_drops_the_extra_lines_of_a_last_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(tmp_path) as log:
        log.write(1, {"loss": 1.0})
        log.write(2, {"loss": math.nan})
        log.write(2, {"loss": 0.5, "norm": 1.0}, attempt=1)
        log.write(2, {"eval/loss": 0.6}, attempt=1)
    rows = read_metrics(path)
    trim(path, 2, attempt=1, extra=["loss", "norm"])
    np.testing.assert_equal(read_metrics(path), [*rows[:2], rows[3]])
    trim(path, 3, attempt=1, extra=["eval/loss"])  # names those of step 3
    np.testing.assert_equal(read_metrics(path), [*rows[:2], rows[3]])


def test_tensorboard_events(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    with MetricsLog(tmp_path) as log:
        log.write(3, {"loss": 0.5, "critic/gap": 2.0})
        log.write_image(3, "samples", picture)
    values = [(event.step, value) for event in events(tmp_path) for value in event.summary.value]
    assert [(s, v.tag, v.simple_value) for s, v in values[:2]] == [(3, "loss", 0.5), (3, "critic/gap", 2.0)]
    step, image = values[2]
    assert (step, image.tag, image.image.height, image.image.width) == (3, "samples", 4, 6)


def test_resume_trims_the_lines_and_tells_tensorboard(tmp_path):
    from tensorboardX.proto.event_pb2 import SessionLog

    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": float(step)})
    with MetricsLog(tmp_path, step=1) as log:
        log.write(2, {"loss": 20.0})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 20.0}]
    starts = [event.step for event in events(tmp_path) if event.session_log.status == SessionLog.START]
    assert starts == [2]  # TensorBoard hides what older files have from this step on


def test_without_tensorboard_one_notice(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with MetricsLog(tmp_path) as log:
        with pytest.warns(UserWarning, match="tensorboardX is not installed") as notices:
            log.write(1, {"loss": 0.5})
            log.write(2, {"loss": 0.25})
            log.write_image(2, "samples", np.zeros((4, 4, 3), np.uint8))
    assert len(notices) == 1
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
