"""The command `jaxgen plan`, and the table that it prints."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Any

from jaxgen import distributed
from jaxgen.config import load_config, override
from jaxgen.devices import ACCELERATORS, usable_memory
from jaxgen.plan import MARGIN, Memory, Plan, readable
from jaxgen.plan import plan as make_plan
from jaxgen.scaling import TOKENS_A_PARAMETER, optimal_tokens, training_flops
from jaxgen.trained import use_cores

USUAL = 0.4  # the utilisation that the table assumes beside the bound: what well-tuned runs of large models report


def plan(args: Sequence[str]) -> int:
    """`plan CONFIG [--devices N] [--device-kind KIND] [--train.steps N …]`: what a run asks for, before it is run."""
    if not args or args[0].startswith("-"):
        print(
            "usage: plan CONFIG [--devices N] [--device-kind KIND] [--no-compile] [--train.steps N …]\n"
            "--devices: plans for so many, which need not be here\n"
            "--device-kind: plans for v4, v5e, v5p, v6e, A100, H100, … rather than for what is here\n"
            "--no-compile: in seconds, without the peak of memory\n"
            "--price: of a device and hour, for the cost of the run\n"
            "CONFIG comes before the options; `plan CONFIG --help` lists those that it shares with `train`"
        )
        return 0 if set(args) & {"-h", "--help"} else 2
    path = args[0]
    parser = argparse.ArgumentParser(prog=f"plan {path}", add_help=False, allow_abbrev=False)
    parser.add_argument("--devices", type=int)
    parser.add_argument("--device-kind")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--price", type=float)
    parser.add_argument("--workdir")  # so that a command of `train` can be planned as it stands
    parser.add_argument("--interrupted-status")
    distributed.add_options(parser)
    known, rest = parser.parse_known_args(args[1:])
    config = override(load_config(path), rest, f"plan {path} [--devices N] [--device-kind KIND] [--no-compile]")
    if known.devices is None:
        use_cores(config.train.batch_size, config.mesh)
    _prepare(known.devices)
    drawn = make_plan(config, known.devices, device_kind=known.device_kind, compiled=not known.no_compile)
    show(path, drawn, price=known.price)
    return 0


def _prepare(num_devices: int | None) -> None:
    """What has to be said to JAX before it starts; options that the user has set stay."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU may be training something else
    flags = os.environ.get("XLA_FLAGS", "")
    # The machine code is never run: its quality costs time and changes no allocation.
    wanted = {"xla_backend_optimization_level": 0}
    if num_devices is not None and num_devices > 0:
        wanted["xla_force_host_platform_device_count"] = num_devices
    missing = [f"--{name}={value}" for name, value in wanted.items() if name not in flags]
    os.environ["XLA_FLAGS"] = " ".join([flags, *missing]).strip()


def show(name: str, plan: Plan, console: Any = None, price: float | None = None) -> None:
    """Prints the plan of the experiment `name` as a table, on standard output by default; `price` a device and hour."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=name, title_justify="left", show_header=False, box=None, pad_edge=False)
    for label, value in _rows(plan, price):
        table.add_row(Text(label), Text(value))
    (console or Console()).print(table)


def _rows(plan: Plan, price: float | None) -> Iterator[tuple[str, str]]:
    num = plan.num_devices
    yield "mesh", f"{num} device{'s' * (num > 1)}: " + ", ".join(f"{axis} {n}" for axis, n in plan.mesh.items())
    active = f", {plan.active:,} of them for each token" if plan.idle else ""
    yield "parameters", f"{plan.parameters:,}{active}"
    total = sum(size.bytes for size in plan.state.values())
    yield "state", f"{readable(total)}, {readable(plan.state_a_device)} a device"
    for part, size in plan.state.items():
        yield f"  {part}", f"{readable(size.bytes)}, {readable(size.bytes_a_device)} a device"
    flops = plan.flops
    products = f"(matrix products {readable(flops.dot, 'FLOP')}, convolutions {readable(flops.conv, 'FLOP')})"
    tokens = f", {plan.examples * plan.tokens:,} tokens" if plan.tokens else ""
    yield "a step", f"{plan.examples:,} examples{tokens}, {readable(flops.model, 'FLOP')} {products}"
    if flops.again:
        yield "", f"computed a second time to save memory, and not among them: {readable(flops.again, 'FLOP')}"
    for note in sorted(flops.notes):
        yield "", f"note: {note}"
    seen = plan.steps * plan.examples
    tokens = f", {seen * plan.tokens:,} tokens" if plan.tokens else ""
    epochs = (
        f"{seen / plan.train_examples:,.4g} epochs"
        if plan.train_examples
        else "epochs unknown: the data are not on disk"
    )
    total_flops = readable(plan.steps * flops.model, "FLOP")
    yield "in total", f"{plan.steps:,} steps, {seen:,} examples{tokens}, {epochs}, {total_flops}"
    if plan.tokens and "base" not in plan.state:  # the rules are of networks trained as a whole
        yield from _scaling(plan)
    yield "memory a device", _memory(plan)
    yield "device", _device(plan)
    bound, usual = plan.seconds(1.0), plan.seconds(USUAL)
    if bound is not None and usual is not None:
        yield "time a step", f"{_time(bound)} at the least; {_time(usual)} if {USUAL:.0%} of the peak is reached"
        yield "time in total", f"{_time(plan.steps * bound)} at the least; {_time(plan.steps * usual)} at {USUAL:.0%}"
    if price is not None and usual is not None:
        yield "cost", f"{plan.steps * usual / 3600 * num * price:,.2f} at {USUAL:.0%} and {price:g} a device and hour"
    for i, hint in enumerate(plan.advice):
        yield "" if i else "to save memory", hint


def _scaling(plan: Plan) -> Iterator[tuple[str, str]]:
    """The run beside the rules of thumb of language models."""
    tokens = plan.steps * plan.examples * plan.tokens
    rule, best = training_flops(plan.active, tokens), optimal_tokens(plan.parameters)
    yield "6 N D", f"{readable(rule, 'FLOP')}; counted: {plan.steps * plan.flops.model / rule:.2f} times that"
    share = f"{tokens / plan.parameters:.3g} tokens a parameter here"
    yield "Chinchilla", f"{TOKENS_A_PARAMETER} tokens a parameter: {best:,} tokens; {share}"


def _holders(memory: Memory) -> list[str]:
    """The names of the accelerators that hold a step of this size."""
    return [a.name for a in ACCELERATORS if memory.peak <= MARGIN * usable_memory(a)]


def _memory(plan: Plan) -> str:
    memory = plan.memory
    if memory is None:
        return f"not compiled: more than the state's {readable(plan.state_a_device)}"
    outputs = readable(memory.outputs - memory.aliased)
    return (
        f"{readable(memory.peak)} at the peak: {readable(memory.arguments)} state and batch, "
        f"{readable(memory.temporary)} temporary, {outputs} results that replace no argument"
    )


def _device(plan: Plan) -> str:
    if plan.device is None:
        fitting = f"; one that would do: {', '.join(_holders(plan.memory)) or 'none'}" if plan.memory else ""
        return f"not named (--device-kind){fitting}"
    has = f"{readable(plan.has)} for JAX" if plan.has else "memory unknown"
    peak = f"{readable(plan.peak_flops, 'FLOP/s')}" if plan.peak_flops else "peak unknown"
    verdict = {None: "whether it fits is unknown", False: "does not fit", True: "fits"}[plan.fits]
    left = "" if plan.fits else f"; {1 - MARGIN:.0%} is to be left"
    share = f" ({plan.memory.peak / plan.has:.0%} of the memory{left})" if plan.memory and plan.has else ""
    return f"{plan.device}, {has}, {peak}: {verdict}{share}"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
