import io
import time

from rich.console import Console

from jaxgen.report.progress import Progress


class Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def plain(total, **options):
    out, clock = io.StringIO(), Clock()
    return Progress(total, console=Console(file=out, force_terminal=False), clock=clock, **options), out, clock


def test_plain_lines_by_hand():
    """A first step of 60 s (compiling), then 1/8 s a step of which 1 % is waiting for data."""
    progress, out, clock = plain(1000)
    with progress:
        clock.now += 60
        progress.update(1, 5.0)
        for step in range(2, 202):
            clock.now += 0.125
            progress.update(step, 0.00125)
            progress.show({"grad_norm": 3.0, "loss": 0.123456})
    lines = out.getvalue().splitlines()
    assert lines[0] == "step 1/1000"
    assert lines[1] == "step 81/1000  loss 0.1235  8 steps/s (0.125 s each)  data wait 1 %  left 0:01:55"
    assert lines[-1].startswith("step 201/1000")
    assert len(lines) == 4  # one in ten seconds of time, one at the end


def test_the_window_forgets():
    """The speed of long ago does not count: 10 steps/s at first, 1 step/s for the last two minutes."""
    progress, out, clock = plain(10_000)
    with progress:
        for step in range(1, 721):
            clock.now += 0.1 if step <= 600 else 1.0
            progress.update(step)
    assert "  1 steps/s (1 s each)  data wait 0 %  left 2:34:40" in out.getvalue().splitlines()[-1]


def test_a_pause_does_not_count():
    progress, out, clock = plain(100)
    with progress:
        for step in range(1, 31):
            clock.now += 1.0
            progress.update(step)
            if step == 20:
                with progress.pause():
                    clock.now += 3600
    assert out.getvalue().splitlines()[-1] == "step 30/100  1 steps/s (1 s each)  data wait 0 %  left 0:01:10"


def test_timing_of_a_line_by_hand():
    """10 s for steps 1-4, 2 of them waiting; an evaluation of an hour; 3 s for steps 5 and 6; then from 2 on again."""
    progress, _, clock = plain(100)
    with progress:
        clock.now += 60  # compiling
        progress.begin(0)
        for step in range(1, 5):
            clock.now += 2.5
            progress.update(step, 0.5)
        assert progress.timing(4) == {"step_time": 2.5, "data_wait": 0.5}
        assert progress.timing(4) == {"step_time": 2.5, "data_wait": 0.5}  # no step has ended since
        with progress.pause():
            clock.now += 3600
        progress.least_step_time = 0.6
        progress.update(6, 0.5)
        clock.now += 3
        assert progress.timing(6) == {"step_time": 1.5, "data_wait": 0.25, "mfu": 0.6 / 1.5}
        clock.now += 7
        progress.begin(2)
        clock.now += 1
        assert progress.timing(4)["step_time"] == 0.5


def test_utilisation_is_shown_where_the_peak_is_known():
    progress, out, clock = plain(100)
    progress.least_step_time = 0.3
    with progress:
        for step in range(1, 31):
            clock.now += 1.0
            progress.update(step)
    assert out.getvalue().splitlines()[-1].endswith("1 steps/s (1 s each)  data wait 0 %  mfu 30 %  left 0:01:10")


def test_a_resumed_run_counts_from_its_step():
    progress, out, clock = plain(520, start=500)
    with progress:
        for step in range(501, 511):
            clock.now += 1.0
            progress.update(step)
    assert out.getvalue().splitlines()[-1] == "step 510/520  1 steps/s (1 s each)  data wait 0 %  left 0:00:10"


def test_text_is_printed_as_it_is():
    progress, out, _ = plain(10)
    with progress:
        progress.print("[bold] saved " + "x" * 200)
    assert out.getvalue() == "[bold] saved " + "x" * 200 + "\n"


def test_a_metric_where_there_is_no_loss():
    progress, out, _ = plain(10)
    with progress:
        progress.show({"inertia": 12.5})
        progress.update(1)
    assert out.getvalue() == "step 1/10  inertia 12.5\n"


def test_silent_when_not_enabled():
    progress, out, clock = plain(10, enabled=False)
    with progress:
        progress.update(1)
        progress.print("text")
        clock.now += 100
        progress.update(2)
    assert out.getvalue() == ""


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out, clock = io.StringIO(), Clock()
    with Progress(10, console=Console(file=out, force_terminal=True, width=120), clock=clock) as progress:
        for step in range(1, 11):
            clock.now += 1.0
            progress.update(step)
        progress.print("saved")
    assert "━" in out.getvalue()
    assert "step 10/10  1 steps/s (1 s each)  data wait 0 %  left 0:00:00" in out.getvalue()
    assert "saved" in out.getvalue()


def test_a_step_costs_microseconds():
    progress = Progress(10**6, console=Console(file=io.StringIO(), force_terminal=False))
    with progress:
        began = time.perf_counter()
        for step in range(20_000):
            progress.update(step, 0.0)
        assert (time.perf_counter() - began) / 20_000 < 50e-6
