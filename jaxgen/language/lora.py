"""LoRA: low-rank adaptation of a frozen method's matrices (Hu et al. 2021, arXiv 2106.09685).

  W + (α/r) A B,   A [in, r] uniform in ±1/√in,   B [r, out] = 0,

for the matrices W [in, out] whose paths the `targets` name, of any method that `gradient_method` makes: the loss stays
the base's, and only A, B and the parameters named by `whole` are trained. The base is a part of the state that no step
changes, without gradients or moments; at step 0 the model is the base, bit for bit. Axes before the last two are
matrices of their own: of a scanned stack [L, in, out] each layer, of a convolution each tap.

A dense layer of a transformer adds (x A) B to its output, and no gradient of W's size is ever made; where a layer does
not take factors (a convolution, an embedding), and for drawing samples, A B is added to W.

Deviations: α/r multiplies B rather than the output; no dropout before A, which the paper's GPT-2 has.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxgen.checksum import by_path, nested
from jaxgen.config import closest
from jaxgen.language import gpt
from jaxgen.method import Method, Objective
from jaxgen.optimizer import AdamWConfig, adamw
from jaxgen.sharding import Rule, path_name

if TYPE_CHECKING:
    from jaxgen.data import Spec

Params = Any


@dataclass(frozen=True)
class Config:
    """Low-rank adapters of another method."""

    base: Any = gpt.Config()
    """The method's own config, with the network of the run that `init_from` names under `base`."""
    rank: int = 8
    """r."""
    alpha: float = 16.0
    """α; A B counts α/r times."""
    targets: tuple[str, ...] = ("attention/[qv]/kernel$",)
    """Regexes of the matrices that are adapted, found anywhere in their paths, such as blocks/attention/q/kernel."""
    whole: tuple[str, ...] = ()
    """Regexes of parameters that are trained as they are: a new classifier's head."""
    optimizer: AdamWConfig = AdamWConfig(3e-4)
    """AdamW, of what is trained."""

    @property
    def sample(self) -> Any:
        """The base's sampling options."""
        return self.base.sample

    @property
    def scale(self) -> float:
        """α/r."""
        return self.alpha / self.rank


def chosen(patterns: Sequence[str], paths: Sequence[str], option: str) -> list[str]:
    """The paths in which one of the regexes is found.

    Raises:
      ValueError: a regex that is none, or that is found in no path; with the closest one.
    """
    for pattern in patterns:
        try:
            found = any(re.search(pattern, path) for path in paths)
        except re.error as error:
            raise ValueError(f"method.{option}: {pattern!r} is no regular expression: {error}") from None
        if not found:
            raise ValueError(f"method.{option}: nothing to adapt matches {pattern!r}{closest(pattern, paths)}")
    return [path for path in paths if any(re.search(pattern, path) for pattern in patterns)]


def adapted(base: Params, params: Params, scale: float, factored: str | None = None) -> Params:
    """The base's parameters with what was trained put in.

    Args:
      base: parameters of the base.
      params: `{"adapters", "whole"}`: at the path of each adapted matrix `lora_a` and `lora_b`; at the path of each
        parameter of the other kind, what stands in its place.
      scale: α/r.
      factored: a regex of the matrices beside which the factors are put, for their layers to use; A B is added to the
        others, and to all of them where it is None.
    """
    whole, factors = by_path(params["whole"]), by_path(params["adapters"])
    beside = {path.rpartition("/")[0] for path in factors if factored and re.search(factored, path)}

    def put_in(path, leaf):
        name = path_name(path)
        if name in whole:
            return whole[name]
        if f"{name}/lora_a" in factors and name not in beside:
            return leaf + (scale * factors[f"{name}/lora_a"] @ factors[f"{name}/lora_b"]).astype(leaf.dtype)
        return leaf

    tree = jax.tree_util.tree_map_with_path(put_in, base)  # new dicts all the way down
    for name in beside:
        layer = functools.reduce(lambda node, key: node[key], name.split("/")[:-1], tree)
        layer |= {"lora_a": factors[f"{name}/lora_a"], "lora_b": scale * factors[f"{name}/lora_b"]}
    return tree


def merged(cfg: Config, state: Any) -> Params:
    """The base's parameters with the adapters added to them, for the base's own method."""
    return adapted(state["base"], state["params"], cfg.scale)


def with_sets(state: Any, sets: Sequence[Params]) -> Any:
    """The state with several adapters, `params` of runs on the same base, of which `cond["adapter"]` chooses."""
    return {**state, "sets": jax.tree.map(lambda *leaves: jnp.stack(leaves), *sets)}


def rules_of(path: str, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """How the factors of a matrix lie: A as its inputs are split, B as its outputs are, neither along r."""
    rule: tuple[Any, ...] = next((rule for rule in rules if re.search(rule[0], path)), ("", P()))
    spec, units = tuple(rule[1]), rule[2:]
    axes: list[Any] = [*[None] * (2 - len(spec)), *spec]
    lead, (inputs, outputs) = axes[:-2], axes[-2:]
    layouts = {"lora_a": P(*lead, inputs, None), "lora_b": P(*lead, None, outputs)}
    return tuple((f"{re.escape(path)}/{name}$", layout, *units) for name, layout in layouts.items())


def check(cfg: Config, method: Method) -> None:
    """Raises a ValueError for an option that cannot be followed, or a method that cannot be adapted."""
    if method.objective is None:
        raise ValueError("only a method of one loss (gradient_method) can be adapted, and method.base is none")
    if cfg.rank < 1 or not cfg.alpha > 0:
        raise ValueError(f"method.rank={cfg.rank} must be 1 or more, method.alpha={cfg.alpha} above 0")


def adapt(method: Method, cfg: Config, spec: Spec) -> Method:
    """The `method` of `cfg.base` with adapters; its state is `{"base", "params", "opt_state"}`.

    It reads, samples and evaluates as the base does. It starts from `base`, the parameters (or the `ema`) of a run of
    the base, or from what the base itself starts from. Where all that is trained are factors of dense layers, `sample`
    also takes `cond["adapter"]`, int [num]: which of the state's `sets` each row is drawn with, see `with_sets`.

    Raises:
      ValueError: the method has more than one loss, a regex matches nothing, or an option is out of range.
    """
    check(cfg, method)
    base, draw, measure = cast(Objective, method.objective), cast(Any, method.sample), cast(Any, method.evaluate)
    abstract = jax.eval_shape(base.init_params, jax.random.key(0), spec.batch(1, method.reads))
    shapes = {path: leaf.shape for path, leaf in by_path(abstract).items()}
    matrices = [p for p, s in shapes.items() if len(s) >= 2 and not re.search("(bias|scale)$", p)]
    targets, whole = chosen(cfg.targets, matrices, "targets"), chosen(cfg.whole, list(shapes), "whole")
    if both := sorted(set(targets) & set(whole)):
        raise ValueError(f"{both[0]} matches both method.targets and method.whole: it is adapted or trained, not both")
    rules = (*(rule for path in targets for rule in rules_of(path, method.rules)), *method.rules)
    tx = adamw(cfg.optimizer)
    within = lambda params: {"params": params, "ema": params}  # whichever of them the method samples with
    put_in = lambda state: within(adapted(state["base"], state["params"], cfg.scale, base.factored))

    def factors(key, path):
        *lead, inputs, outputs = shapes[path]
        a = jax.random.uniform(key, (*lead, inputs, cfg.rank), minval=-1, maxval=1) / inputs**0.5
        return {f"{path}/lora_a": a, f"{path}/lora_b": jnp.zeros((*lead, cfg.rank, outputs))}

    def init(key, batch, warm=None):
        key_base, key_adapters = jax.random.split(key)
        start = warm["base"] if warm and "base" in warm else base.init_params(key_base, batch, warm)
        keys, leaves = jax.random.split(key_adapters, len(targets) + 1), by_path(start)
        adapters = {name: x for key, path in zip(keys, targets, strict=False) for name, x in factors(key, path).items()}
        # Copies: the state is donated, and one buffer cannot be given twice.
        params = {"adapters": nested(adapters), "whole": nested({path: jnp.copy(leaves[path]) for path in whole})}
        return {"base": start, "params": params, "opt_state": tx.init(params)}

    def step(state, batch, key):
        loss_fn = lambda params, *args: base.loss_fn(adapted(state["base"], params, cfg.scale, base.factored), *args)
        params, opt_state, metrics = base._replace(loss_fn=loss_fn).descend(
            tx, state["params"], state["opt_state"], batch, key, rules
        )
        return {"base": state["base"], "params": params, "opt_state": opt_state}, metrics

    def sample(state, key, num, cond=None):
        cond = dict(cond or {})
        which = cond.pop("adapter", None)
        if which is None:
            return draw(within(merged(cfg, state)), key, num, cond or None)
        # [N, L, in, r] → [L, B, in, r]: behind the axes of a scan, where a dense layer has its rows.
        rows = jax.tree.map(lambda x: jnp.moveaxis(x[which], 0, -3), state["sets"])
        return draw(put_in({**state, "params": rows}), key, num, cond or None)

    apart = not whole and base.factored is not None and all(re.search(base.factored, path) for path in targets)
    return Method(
        init,
        step,
        draw and sample,
        measure and (lambda state, batch, key: measure(put_in(state), batch, key)),
        method.reads,
        rules,
        (*method.starts_from, "base"),
        (*method.conditions, "adapter") if apart and draw else method.conditions,
        method.enumerates,
    )
