"""Four small methods of four shapes, which the contract and the trainer must carry without knowing them.

Alternating optimizers with a gradient penalty, a closed form, a language model, a LoRA that starts from another run.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from jaxgen import catalog
from jaxgen.config import Experiment, TrainConfig
from jaxgen.data import SOURCES, Dataset, Spec, Toy
from jaxgen.method import Method, descend, gradient_method, split_batch, with_ema


def dense(key, num_in, num_out):
    return {"kernel": jax.random.normal(key, (num_in, num_out)) / num_in**0.5, "bias": jnp.zeros(num_out)}


def mlp(layers, x):
    for i, layer in enumerate(layers):
        x = x @ layer["kernel"] + layer["bias"][None]
        x = jnp.tanh(x) if i < len(layers) - 1 else x
    return x


@dataclass(frozen=True)
class GanConfig:
    num_critic: int = 2
    width: int = 16


def make_gan(cfg: GanConfig, spec: Spec) -> Method:
    """WGAN-GP: a scan of critic descents over parts of the batch, then one of the generator; EMA of the generator."""
    (dim,) = spec.shape("x")
    tx = optax.adam(1e-3, b1=0.5, b2=0.9)

    def init(key, batch, warm=None):
        keys = jax.random.split(key, 4)
        gen = [dense(keys[0], dim, cfg.width), dense(keys[1], cfg.width, dim)]
        critic = [dense(keys[2], dim, cfg.width), dense(keys[3], cfg.width, 1)]
        return {"gen": gen, "critic": critic, "gen_opt": tx.init(gen), "critic_opt": tx.init(critic)}

    def critic_loss(critic, real, fake, mix):
        between = mix[:, None] * real + (1 - mix)[:, None] * fake
        slope = jax.vmap(jax.grad(lambda x: mlp(critic, x[None])[0, 0]))(between)
        penalty = jnp.mean((jnp.linalg.norm(slope, axis=1) - 1) ** 2)
        distance = mlp(critic, real).mean() - mlp(critic, fake).mean()
        return 10 * penalty - distance, {"wasserstein": distance, "gradient_penalty": penalty}

    def gen_loss(gen, critic, z):
        return -mlp(critic, mlp(gen, z)).mean(), {}

    def step(state, batch, key):
        key_critic, key_gen = jax.random.split(key)

        def descend_critic(carry, part):
            real, key = part
            key_z, key_mix = jax.random.split(key)
            fake = mlp(state["gen"], jax.random.normal(key_z, real.shape))
            *carry, metrics = descend(tx, critic_loss, *carry, real, fake, jax.random.uniform(key_mix, real.shape[:1]))
            return tuple(carry), metrics

        parts = split_batch(batch["x"], cfg.num_critic), jax.random.split(key_critic, cfg.num_critic)
        (critic, critic_opt), metrics = jax.lax.scan(descend_critic, (state["critic"], state["critic_opt"]), parts)
        z = jax.random.normal(key_gen, batch["x"].shape)
        gen, gen_opt, gen_metrics = descend(
            tx, lambda gen, z: gen_loss(gen, critic, z), state["gen"], state["gen_opt"], z
        )
        metrics = {f"critic/{name}": value[-1] for name, value in metrics.items()}
        new = {"gen": gen, "critic": critic, "gen_opt": gen_opt, "critic_opt": critic_opt}
        return new, {"loss": gen_metrics["loss"], **metrics}

    def sample(state, key, num, cond=None):
        return {"x": mlp(state["gen"], jax.random.normal(key, (num, dim)))}

    return with_ema(Method(init, step, sample, reads=("x",)), "gen", 0.9)


@dataclass(frozen=True)
class KMeansConfig:
    num_clusters: int = 4


def make_kmeans(cfg: KMeansConfig, spec: Spec) -> Method:
    """Mini-batch k-means: a closed-form update of centroids and counts, no optimizer."""

    def distances(centroids, x):
        return jnp.sum((x[:, None] - centroids[None]) ** 2, -1)

    def init(key, batch, warm=None):
        return {"centroids": batch["x"][: cfg.num_clusters] + 0.0, "counts": jnp.zeros(cfg.num_clusters)}

    def step(state, batch, key):
        d = distances(state["centroids"], batch["x"])
        hot = jax.nn.one_hot(d.argmin(1), cfg.num_clusters)
        counts = state["counts"] + hot.sum(0)
        moved = hot.T @ batch["x"] - hot.sum(0)[:, None] * state["centroids"]
        centroids = state["centroids"] + moved / jnp.maximum(counts, 1)[:, None]
        return {"centroids": centroids, "counts": counts}, {"loss": d.min(1).mean()}

    def sample(state, key, num, cond=None):
        return {"x": state["centroids"][jax.random.randint(key, (num,), 0, cfg.num_clusters)]}

    def evaluate(state, batch, key):
        d = distances(state["centroids"], batch["x"]).min(1)
        return {"loss": (d, jnp.ones_like(d))}

    return Method(init, step, sample, evaluate, reads=("x",))


@dataclass(frozen=True)
class LmConfig:
    width: int = 16
    accumulate: int = 1


def _embedding_rules():
    return ((r"(embed|head)$", P(None, "tensor")),)


def lm_logits(params, tokens):
    """A causal bag-of-words model: the mean of the embeddings so far, one hidden layer."""
    h = params["embed"][tokens]  # [B, T, D]
    h = jnp.cumsum(h, 1) / jnp.arange(1.0, tokens.shape[1] + 1)[None, :, None]
    return jnp.tanh(h @ params["hidden"]) @ params["head"]  # [B, T, V]


def lm_loss(params, batch, noise):
    tokens, mask = batch["tokens"], batch["mask"].astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(lm_logits(params, tokens)[:, :-1], tokens[:, 1:])
    return jnp.sum(losses * mask[:, 1:]) / mask[:, 1:].sum(), {}


def init_lm(cfg, spec, key):
    (vocab,) = spec.sizes["tokens"]
    keys = jax.random.split(key, 3)
    shapes = {"embed": (vocab, cfg.width), "hidden": (cfg.width, cfg.width), "head": (cfg.width, vocab)}
    return {n: jax.random.normal(k, s) / s[0] ** 0.5 for (n, s), k in zip(shapes.items(), keys, strict=True)}


def sample_lm(params, spec, key, num):
    (length,) = spec.shape("tokens")

    def write(tokens, part):
        position, key = part
        logits = jnp.take_along_axis(lm_logits(params, tokens), position[None, None, None] - 1, 1)[:, 0]
        return tokens.at[:, position].set(jax.random.categorical(key, logits)), None

    start = jnp.zeros((num, length), jnp.int32)
    return {"tokens": jax.lax.scan(write, start, (jnp.arange(1, length), jax.random.split(key, length - 1)))[0]}


def make_lm(cfg: LmConfig, spec: Spec) -> Method:
    """A language model: accumulation weighted by tokens, tensor-parallel rules, EMA."""

    def evaluate(state, batch, key):
        tokens, mask = batch["tokens"], batch["mask"].astype(jnp.float32)[:, 1:]
        losses = optax.softmax_cross_entropy_with_integer_labels(
            lm_logits(state["params"], tokens)[:, :-1], tokens[:, 1:]
        )
        return {"loss": (jnp.sum(losses * mask, 1), mask.sum(1))}

    method = gradient_method(
        lambda key, batch, warm=None: init_lm(cfg, spec, key),
        lm_loss,
        optax.adamw(1e-2),
        lambda state, key, num, cond=None: sample_lm(state["params"], spec, key, num),
        evaluate,
        accumulate=cfg.accumulate,
        weight_fn=lambda batch, noise: batch["mask"][:, 1:].sum(),
        reads=("tokens", "mask"),
        rules=_embedding_rules(),
    )
    return with_ema(method, decay=0.9)


@dataclass(frozen=True)
class LoraConfig:
    rank: int = 2
    base: LmConfig = LmConfig()


def make_lora(cfg: LoraConfig, spec: Spec) -> Method:
    """Low-rank adapters of `hidden` and `head`; the base comes from `init_from={"base": …}` and stays frozen."""

    def adapted(base, adapters):
        return {n: base[n] + adapters[n]["a"] @ adapters[n]["b"] if n in adapters else base[n] for n in base}

    def init_adapters(key):
        (vocab,) = spec.sizes["tokens"]
        shapes = {"hidden": (cfg.base.width, cfg.base.width), "head": (cfg.base.width, vocab)}
        keys = jax.random.split(key, len(shapes))
        return {
            n: {"a": jax.random.normal(k, (i, cfg.rank)) / i**0.5, "b": jnp.zeros((cfg.rank, o))}
            for (n, (i, o)), k in zip(shapes.items(), keys, strict=True)
        }

    tx = optax.adam(1e-2)

    def init(key, batch, warm=None):
        key_base, key_adapters = jax.random.split(key)
        base = warm["base"] if warm else init_lm(cfg.base, spec, key_base)
        adapters = init_adapters(key_adapters)
        return {"base": base, "params": adapters, "opt_state": tx.init(adapters)}

    def step(state, batch, key):
        loss_fn = lambda adapters, batch: lm_loss(adapted(state["base"], adapters), batch, None)  # noqa: E731
        params, opt_state, metrics = descend(tx, loss_fn, state["params"], state["opt_state"], batch)
        return {"base": state["base"], "params": params, "opt_state": opt_state}, metrics

    def sample(state, key, num, cond=None):
        return sample_lm(adapted(state["base"], state["params"]), spec, key, num)

    return Method(init, step, sample, reads=("tokens", "mask"), rules=_embedding_rules(), starts_from=("base",))


@dataclass(frozen=True)
class ToyTokens:
    """Sequences that count upwards by a step of their own modulo the vocabulary, with ragged ends."""

    vocab: int = 8
    length: int = 12
    count: int = 200

    def load(self) -> Dataset:
        keys = {"tokens": (self.length,), "mask": (self.length,)}
        spec = Spec(
            shapes=keys,
            dtypes={"tokens": "int32", "mask": "int32"},
            counts={"train": self.count, "validation": 20, "test": 21},
            names={},
            sizes={"tokens": (self.vocab,)},
        )

        def read(split, indices, keys):
            offset = {"train": 0, "validation": 10_000, "test": 20_000}[split]
            n = np.asarray(indices) + offset
            start, stride = n % self.vocab, n // self.vocab % 3 + 1
            tokens = (start[:, None] + stride[:, None] * np.arange(self.length)) % self.vocab
            mask = np.arange(self.length)[None] < (self.length - n % 5)[:, None]
            arrays = {"tokens": tokens.astype(np.int32), "mask": mask.astype(np.int32)}
            return {key: arrays[key] for key in keys}

        return Dataset(spec, read)


TOYS = {
    "toy_gan": (GanConfig, make_gan),
    "toy_kmeans": (KMeansConfig, make_kmeans),
    "toy_lm": (LmConfig, make_lm),
    "toy_lora": (LoraConfig, make_lora),
}

SHORT = TrainConfig(steps=8, batch_size=16, log_every=2, sample_every=8, save_every=4, eval_every=4, num_samples=8)
RING = Toy("ring", size=400)  # few points: they are evaluated over and over
EXPERIMENTS = {
    "toy_gan": Experiment(GanConfig(), RING, SHORT),
    "toy_kmeans": Experiment(KMeansConfig(), RING, SHORT),
    "toy_lm": Experiment(LmConfig(), ToyTokens(), SHORT),
    "toy_lora": Experiment(LoraConfig(), ToyTokens(), SHORT),
}


def register() -> None:
    """Puts the toys where the catalog and the data sources are looked up."""
    catalog.CATALOG.update(TOYS)
    SOURCES["toy_tokens"] = ToyTokens
