"""The commands `jaxgen train`, `sample`, `evaluate`, `league`, `plan`, `convert`; train.py and sample.py call them."""

from __future__ import annotations

import argparse
import errno
import logging
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxgen import backend, catalog, distributed, trainer
from jaxgen.config import Experiment, MeshConfig, experiment_to_json, load_config, override
from jaxgen.data import SOURCES, Dataset, condition, fill
from jaxgen.interop.convert import convert
from jaxgen.language import adapters
from jaxgen.language.streaming import stream_run
from jaxgen.league_command import league
from jaxgen.method import Method
from jaxgen.metrics import evaluation, reporting
from jaxgen.plan_command import plan
from jaxgen.program import make_sample
from jaxgen.report.progress import Progress
from jaxgen.report.samples import check_suffix, default_suffix, named_key, with_text, write_samples
from jaxgen.sharding import AXES, check_batch, make_mesh
from jaxgen.trained import CHUNK, Run, draw_samples, layout, open_run, restore, use_cores
from jaxgen.watch import NonFiniteError


def this_program(command: str) -> list[str]:
    """How the user, who has just called one command, calls another one."""
    if Path(sys.argv[0]).name in ("train.py", "sample.py"):
        return ["python", str(Path(sys.argv[0]).with_name(f"{command}.py"))]
    return ["jaxgen", command]


def add_mesh_options(parser: argparse.ArgumentParser) -> None:
    """`--mesh.data` and its like, for the commands that do not take the whole experiment's options."""
    for axis in AXES:
        default = getattr(MeshConfig(), axis)
        parser.add_argument(
            f"--mesh.{axis}", dest=axis, metavar="N", type=int, default=default, help=f"devices (default: {default})"
        )


def train(args: Sequence[str]) -> int:
    """`train CONFIG [--workdir DIR] [--train.steps N …]`: trains, or goes on with, a run."""
    if not args or args[0].startswith("-"):
        print(
            "usage: train CONFIG [--workdir DIR] [--train.steps N …]\n"
            "CONFIG, a Python file such as configs/ddpm_faces.py, comes before the options; "
            "`train CONFIG --help` lists them\n"
            "--interrupted-status N: the exit status after a signal, 0 by default; 75, say, for a scheduler to go on"
        )
        return 0 if set(args) & {"-h", "--help"} else 2
    path = args[0]
    parser = argparse.ArgumentParser(prog=f"train {path}", add_help=False, allow_abbrev=False)
    parser.add_argument("--workdir")
    parser.add_argument("--interrupted-status", type=int, default=0)
    distributed.add_options(parser)
    known, rest = parser.parse_known_args(args[1:])
    distributed.initialize(distributed.asked(known), stoppable=True)

    def load() -> tuple[Experiment, Dataset, Method]:
        config = override(load_config(path), rest, f"train {path} [--workdir DIR] [--processes.num N …]")
        backend.prepare(config.train)
        use_cores(config.train.batch_size, config.mesh)
        data = config.data.load()
        return config, data, catalog.make(config.method, data.spec)

    config, data, method = distributed.together(load)
    workdir = Path(known.workdir or Path("runs") / Path(path).stem)
    document = experiment_to_json(config, catalog.kinds(), SOURCES) | {"spec": data.spec.to_json()}
    outcome = trainer.train(config, method, data, workdir, document)
    status = known.interrupted_status if outcome.reason == "interrupted" else 0
    if not distributed.is_first():
        return status
    if outcome.reason == "done":
        draw = shlex.join([*this_program("sample"), str(workdir), "--num", "64"])
        measure = shlex.join(["jaxgen", "evaluate", str(workdir)])
        print(f"{workdir}: done, {outcome.step} steps; next: {draw if method.sample else measure}")
    else:
        again = shlex.join([*this_program("train"), path, "--workdir", str(workdir), *rest])
        where = f", in each of {num} processes" if (num := distributed.num_processes()) > 1 else ""
        print(f"{workdir}: {outcome.reason}; saved at step {outcome.step}; to go on{where}: {again}")
    return status


def sample(args: Sequence[str]) -> int:
    """`sample DIR --num N --out FILE`: draws samples from a run; the method's sampling options can be overridden."""
    parser = argparse.ArgumentParser(prog="sample", add_help=False, allow_abbrev=False)
    parser.add_argument("run", nargs="?", type=Path, help="the run's directory; it comes before the options")
    parser.add_argument("--num", type=int, default=64, help="how many (default: 64)")
    parser.add_argument(
        "--out",
        type=Path,
        help=".png a grid or strips, .gif an animation, .npz arrays, .txt text (default: DIR/samples.png or what fits)",
    )
    parser.add_argument("--seed", type=int, default=0, help="other samples for another seed (default: 0)")
    parser.add_argument("--checkpoint", default="last", help="last, best, or a step (default: last)")
    parser.add_argument(
        "--condition",
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="what is asked for: smiling=1,glasses=0, label=boot or a caption, word=treaty, title=DOCUMENT, user=NAME "
        "(what the model takes); several of them share the samples",
    )
    parser.add_argument(
        "--known",
        metavar="PICTURE",
        help="a picture to fill in, or to reconstruct: a file, an example such as test:3, or test, its first ones",
    )
    parser.add_argument(
        "--mask",
        help="what of it is drawn: left, right, top, bottom, centre or a file, white is drawn (default: right)",
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="RUN",
        type=Path,
        help="a run of `lora` on the same base, whose adapters the --prompt of the same place is drawn with",
    )
    parser.add_argument("--stream", action="store_true", help="shows the text of each --prompt while it is written")
    add_mesh_options(parser)
    distributed.add_options(parser)
    known, rest = parser.parse_known_args(args)
    asked = not {"-h", "--help"}.isdisjoint(rest)
    if known.run is None or asked:
        parser.print_help()
        if known.run is None:
            return 0 if asked else 2
    if args[0].startswith("-"):
        raise ValueError(f"the run's directory comes before the options: sample {known.run} …")
    if known.num < 1:
        raise ValueError(f"--num must be 1 or more, not {known.num}")
    distributed.initialize(distributed.asked(known))
    run = distributed.together(lambda: open_run(known.run))
    if asked and not hasattr(run.config.method, "sample"):
        return 0
    run = with_options(run, rest, f"sample {known.run}")
    if run.method.sample is None:
        raise ValueError(f"the method of {known.run} does not sample")
    cond = distributed.together(lambda: condition_of(run, known.condition, known.known, known.mask, known.num))
    if known.adapter:
        cond |= adapters.rows(run, known.adapter, len(known.condition), known.num)
        if known.stream:
            raise ValueError("--stream shows one text at a time: give the run with the adapters, without --adapter")
    axes = MeshConfig(known.data, known.fsdp, known.tensor)
    backend.prepare_for(run.config.train)
    use_cores(min(known.num, CHUNK), axes)
    mesh = make_mesh(axes)
    with jax.set_mesh(mesh):
        abstract = layout(run, mesh)
        state = adapters.with_sets(run, mesh, abstract, known.adapter) if known.adapter else abstract
        shapes = jax.eval_shape(make_sample(run.method, mesh), state, jax.random.key(0), known.num, cond or None)
        if key_of_names := named_key(shapes, run.spec):
            shapes = {**shapes, "text": shapes[key_of_names]}
        out = known.out or known.run / f"samples{default_suffix(shapes)}"
        check_suffix(out, shapes)
        found = restore(run, abstract, known.checkpoint)
        if known.stream:
            for text in known.condition or [""]:
                for piece in stream_run(run, found.state, text, known.seed):
                    print(piece, end="", flush=True)
                print()
            return 0
        state = adapters.with_sets(run, mesh, found.state, known.adapter) if known.adapter else found.state
        with Progress(known.num, enabled=distributed.is_first(), unit="samples") as progress:
            samples = draw_samples(run, mesh, state, known.num, known.seed, cond, progress.update)
    if distributed.is_first():
        write_samples(out, with_text(samples, run.spec))
        print(f"{out}: {known.num} samples of {known.run} at step {found.step}")
    return 0


def with_options(run: Run, args: Sequence[str], prog: str) -> Run:
    """The run with sampling options of its method as they were typed; an unknown one ends the program.

    Raises:
      ValueError: the method has no sampling options, or refuses their values.
    """
    if not hasattr(run.config.method, "sample"):
        if args:
            raise ValueError(f"unknown option {args[0]}: this method has no sampling options")
        return run
    import tyro  # 0.3 s, needed by the entry points alone

    options = run.config.method.sample
    return run.with_sampling(tyro.cli(type(options), default=options, args=list(args), prog=prog))


def condition_of(
    run: Run, texts: Sequence[str], known: str | None, mask: str | None, num: int
) -> dict[str, np.ndarray]:
    """What `num` samples are asked to be, `{key: [num, ...]}`, from the options as they were typed.

    Raises:
      ValueError: the method takes no such condition, or an option that cannot be understood.
    """
    takes = run.method.conditions
    keys = [key for key in condition.OPEN if key in takes]
    if texts and not keys:
        raise ValueError(f"the model of {run.workdir} is unconditional: it takes no --condition")
    cond = condition.spread([condition.parse(run.spec, keys, text) for text in texts], num)
    for text in texts:
        if "tokens" in keys and (unknown := condition.unknown_words(run.spec, text)):
            print(f"not in the vocabulary, and read as an unknown word: {', '.join(unknown)}")
    if mask is not None and known is None:
        raise ValueError("--mask needs --known, the picture to fill in")
    if known is not None:
        if "known" not in takes:
            raise ValueError(f"the method of {run.workdir} fills in no pictures: it takes no --known")
        cond["known"] = fill.pictures(known, run.spec, run.config.data.load, num)
        if "mask" in takes:
            cond["mask"] = np.stack([fill.mask_of(mask or "right", run.spec)] * num)
        elif mask is not None:
            raise ValueError(f"the method of {run.workdir} takes whole pictures: it takes no --mask")
    return cond


def evaluate(args: Sequence[str]) -> int:
    """`evaluate DIR [--num 2000]`: a run's metrics over a split and of its samples, each beside floor and baseline."""
    parser = argparse.ArgumentParser(prog="evaluate", add_help=False, allow_abbrev=False)
    parser.add_argument("run", nargs="?", type=Path, help="the run's directory; it comes before the options")
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument("--checkpoint", default="last", help="last, best, or a step (default: last)")
    parser.add_argument(
        "--num",
        type=int,
        default=2000,
        help="samples to draw and measure; 0 for none (default: 2000, or the split's size)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    parser.add_argument(
        "--features", help="FILE.py:FUNCTION, images uint8 [N,H,W,C] → features [N,D] (default: the network that ships)"
    )
    parser.add_argument(
        "--against",
        metavar="OPTIONS",
        help='what to change in the sampling options and compare with, "--sampler ancestral --steps 1000"',
    )
    add_mesh_options(parser)
    distributed.add_options(parser)
    known, rest = parser.parse_known_args(args)
    asked = not {"-h", "--help"}.isdisjoint(rest)
    if known.run is None or asked:
        parser.print_help()
        if known.run is None:
            return 0 if asked else 2
    if args[0].startswith("-"):
        raise ValueError(f"the run's directory comes before the options: evaluate {known.run} …")
    distributed.initialize(distributed.asked(known))
    run = distributed.together(lambda: open_run(known.run))
    if asked and not hasattr(run.config.method, "sample"):
        return 0
    run = with_options(run, rest, f"evaluate {known.run}")
    against = with_options(run, shlex.split(known.against), "evaluate --against") if known.against else None
    if run.method.evaluate is None and run.method.sample is None:
        raise ValueError(f"the method of {known.run} has no metrics to evaluate")
    batch_size = run.config.train.batch_size
    axes = MeshConfig(known.data, known.fsdp, known.tensor)
    backend.prepare_for(run.config.train)
    use_cores(batch_size, axes)
    data = distributed.together(run.config.data.load)
    data.spec.check(known.split, run.method.reads)
    mesh = make_mesh(axes)
    check_batch(batch_size, mesh)
    with jax.set_mesh(mesh):
        found = restore(run, layout(run, mesh), known.checkpoint)
        report = evaluation.evaluate(
            run,
            data,
            mesh,
            found,
            known.split,
            num=known.num,
            seed=known.seed,
            features=known.features,
            against=against,
        )
    if distributed.is_first():
        reporting.show(report)
        print(f"{reporting.write(report, run.workdir)}: the same figures as JSON")
    return 0


_SPACE = "make room there: nothing that was saved is harmed, and the same command goes on from the last checkpoint"
_RIGHTS = "choose a place that this user may read and write, such as another --workdir"
DISK = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _SPACE)
DISK |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS)
DISK |= dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "another file is in the way: choose another place")

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "league": league,
    "plan": plan,
    "convert": convert,
}


def run_command(command: Callable[[Sequence[str]], int], args: Sequence[str]) -> int:
    """Runs a command; an error that jaxgen raised itself is a message to the user, any other keeps its traceback."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what Orbax meets comes as exceptions; the rest is noise
    with distributed.ending_together():
        try:
            return command(args)
        except (ValueError, FileNotFoundError, NonFiniteError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            if not Path(frames[-1].filename).is_relative_to(Path(__file__).parent):
                raise
            code, message = 2, f"error: {error}"
        except OSError as error:
            if error.errno not in DISK or error.filename is None:
                raise
            code, message = 2, f"error: {error.filename}: {error.strerror}; {DISK[error.errno]}"
        except KeyboardInterrupt:
            code, message = 130, "stopped at once; the same command goes on from the last checkpoint"
        print(message, file=sys.stderr)
        distributed.leave(code)
        return code


def main() -> int:
    """The console script `jaxgen`."""
    name, args = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name not in COMMANDS:
        print("usage: jaxgen COMMAND …\n\n" + "\n".join(f"  {c.__doc__}" for c in COMMANDS.values()))
        return 0 if name in ("-h", "--help") else 2
    return run_command(COMMANDS[name], args)
