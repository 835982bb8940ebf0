"""jaxdl beside PyTorch on two trainings that no common description of layers covers: a small GPT, and an adversarial pair.

    python -m benchmarks.pairs --rounds 5

`gpt`: 4 blocks of 4 heads, 128 wide, 64 characters of 65, batches of 12, Adam, tied logits. All start from the same weights,
and their losses after 4 and 8 steps must agree. `gan`: the dense pair 128-256-512-1024-784, 784-1024-512-256-128-1, leaky relu
of 0.2, Adam (2e-4, β₁ 0.5), batches of 64. Codes are drawn by each library's own generator, so that only an epoch's mean losses
can be compared. Each peer has a process of its own, and they take turns. Writes `pairs.json`.
"""

import argparse
import functools
import itertools
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.processes import Answer, Worker, serve

PEERS = {"gpt": ("jaxdl", "torch eager", "torch compile"), "gan": ("jaxdl", "torch eager")}
TOLERANCES = {"gpt": 1e-3, "gan": 0.15}
VOCABULARY, CONTEXT, FEATURES, HEADS, LAYERS = 65, 64, 128, 4, 4
GPT_BATCH, GPT_STEPS, GAN_BATCH, GAN_STEPS = 12, 40, 64, 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each peer: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the file: %(default)s")
    parser.add_argument("--serve", nargs=2, metavar=("NETWORK", "PEER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        network, peer = given.serve
        timed = MAKERS[network, peer.split()[0]](*peer.split()[1:])
        turn = functools.partial(answered, timed.train)
        serve({"first": turn, "check": lambda: {"losses": timed.check()}, "round": turn})
        return
    result: dict[str, Any] = {"machine": machine.description(), "rounds": given.rounds, "networks": {}}
    for network in PEERS:
        result["networks"][network] = measured(network, given.rounds, given.out)
        for peer, figures in result["networks"][network].items():
            print(f"{network:4} {peer:14} {figures['milliseconds']:8.2f} ms a step, {figures['ratio_to_jaxdl']:.2f} × jaxdl")
    (given.out / "pairs.json").write_text(json.dumps(result, indent=2) + "\n")


def measured(network: str, rounds: int, out: Path) -> dict[str, Any]:
    """Starts a process for each peer, requires that they agree, and lets them take turns."""
    with ExitStack() as processes:
        workers = {
            peer: processes.enter_context(
                Worker(peer, "benchmarks.pairs", "--serve", network, peer, log=out / f"{network}-{peer.replace(' ', '-')}.log")
            )
            for peer in PEERS[network]
        }
        firsts = {peer: worker.ask("first")["seconds"] for peer, worker in workers.items()}
        losses = {peer: worker.ask("check")["losses"] for peer, worker in workers.items()}
        for values in zip(*losses.values(), strict=True):
            if max(values) - min(values) > TOLERANCES[network] * abs(median(values)):
                raise RuntimeError(f"{network}: expected one loss of all peers, got {losses}.")
        turns: dict[str, list[float]] = {peer: [] for peer in workers}
        for _ in range(rounds):
            for peer, worker in workers.items():
                answer = worker.ask("round")
                turns[peer].append(1e3 * answer["seconds"] / answer["steps"])
    return {
        peer: {
            "milliseconds": median(own),
            "rounds": own,
            "ratio_to_jaxdl": median(a / b for a, b in zip(own, turns["jaxdl"], strict=True)),
            "first_call_seconds": firsts[peer],
            "losses": losses[peer],
        }
        for peer, own in turns.items()
    }


def answered(train: Callable[[], int]) -> Answer:
    began = time.perf_counter()
    steps = train()
    return {"seconds": time.perf_counter() - began, "steps": steps}


def windows(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a text of 65 characters, [steps · batch, context], and what follows upon each of their characters."""
    generator = np.random.default_rng(0)
    text = np.cumsum(generator.integers(0, 4, steps * GPT_BATCH * (CONTEXT + 1)), dtype=np.int64) % VOCABULARY
    rows = text.reshape(-1, CONTEXT + 1).astype(np.int32)
    return rows[:, :-1].copy(), rows[:, 1:].copy()


def gpt_weights() -> dict[str, np.ndarray]:
    """By jaxdl's dotted names."""
    generator = np.random.default_rng(1)
    shapes = {"tokens.embedding": (VOCABULARY, FEATURES), "positions.embedding": (CONTEXT, FEATURES), "norm.scale": (FEATURES,)}
    for block in range(LAYERS):
        shapes |= {f"block_{block}.attention.{name}.kernel": (FEATURES, FEATURES) for name in ("query", "key", "value", "out")}
        shapes |= {f"block_{block}.{name}_norm.scale": (FEATURES,) for name in ("attention", "mlp")}
        shapes[f"block_{block}.mlp.hidden.kernel"] = (FEATURES, 4 * FEATURES)
        shapes[f"block_{block}.mlp.out.kernel"] = (4 * FEATURES, FEATURES)
    draws = {name: generator.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: np.ones_like(draw) if name.endswith("scale") else draw for name, draw in draws.items()}


def nested(leaves: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


class JaxdlGpt:
    """`models.gpt` and `dl.fit`, the epoch compiled."""

    def __init__(self) -> None:
        import optax

        from jaxdl import models

        self.model = models.gpt(VOCABULARY, layers=LAYERS, heads=HEADS, features=FEATURES, context=CONTEXT)
        self.optimizer = optax.adam(1e-3)
        self.data, self.few = windows(GPT_STEPS), windows(4)

    def train(self) -> int:
        self._fit(self.data, 1, shuffle=True)
        return GPT_STEPS

    def check(self) -> list[float]:
        return [self._loss(self._fit(self.few, epochs, shuffle=False)) for epochs in (1, 2)]

    def _fit(self, data: Any, epochs: int, shuffle: bool) -> Any:
        import jax

        import jaxdl as dl
        from jaxdl import losses

        options: dict[str, Any] = {"loss": losses.softmax_cross_entropy, "optimizer": self.optimizer, "batch_size": GPT_BATCH}
        start = (nested(gpt_weights()), {})
        run = dl.fit(
            self.model, data, epochs=epochs, shuffle=shuffle, initial=start, progress=False, compile="epoch", **options
        )
        return jax.block_until_ready(run.params)

    def _loss(self, params: Any) -> float:
        import jaxdl as dl
        from jaxdl import losses

        return dl.evaluate(self.model, params, {}, self.few, loss=losses.softmax_cross_entropy)["loss"]


class TorchGpt:
    """nanoGPT's form: one product for query, key and value, `scaled_dot_product_attention`, fused Adam; compiled if said."""

    def __init__(self, way: str) -> None:
        import torch

        self.torch, self.compiled = torch, way == "compile"
        self.data, self.few = ([torch.tensor(part, dtype=torch.long) for part in windows(steps)] for steps in (GPT_STEPS, 4))
        self.module = gpt_module(torch)
        self.loss_of = torch.compile(self.module) if self.compiled else self.module

    def train(self) -> int:
        self._descend(self.data, 1)
        return GPT_STEPS

    def check(self) -> list[float]:
        losses = []
        for epochs in (1, 2):
            self._descend(self.few, epochs)
            with self.torch.no_grad():
                losses.append(self.module(*self.few).item())
        return losses

    def _descend(self, data: Any, epochs: int) -> None:
        lay_gpt(self.torch, self.module)
        optimizer = self.torch.optim.Adam(self.module.parameters(), 1e-3, fused=True)
        for _ in range(epochs):
            for first in range(0, len(data[0]), GPT_BATCH):
                loss = self.loss_of(*(part[first : first + GPT_BATCH] for part in data))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()


def gpt_module(torch: Any) -> Any:
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_norm, self.mlp_norm = (nn.LayerNorm(FEATURES, eps=1e-5, bias=False) for _ in range(2))
            self.projection, self.out = nn.Linear(FEATURES, 3 * FEATURES, bias=False), nn.Linear(FEATURES, FEATURES, bias=False)
            self.hidden = nn.Linear(FEATURES, 4 * FEATURES, bias=False)
            self.mlp_out = nn.Linear(4 * FEATURES, FEATURES, bias=False)

        def forward(self, x: Any) -> Any:
            heads = (
                part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.projection(self.attention_norm(x)).chunk(3, -1)
            )
            x = x + self.out(functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(-2))
            return x + self.mlp_out(functional.gelu(self.hidden(self.mlp_norm(x)), approximate="tanh"))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(VOCABULARY, FEATURES), nn.Embedding(CONTEXT, FEATURES)
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.norm = nn.LayerNorm(FEATURES, eps=1e-5, bias=False)

        def forward(self, inputs: Any, targets: Any) -> Any:
            x = self.norm(self.blocks(self.tokens(inputs) + self.positions.weight[None, : inputs.shape[1]]))
            return functional.cross_entropy((x @ self.tokens.weight.T).flatten(0, 1), targets.flatten())

    return Gpt()


def lay_gpt(torch: Any, module: Any) -> None:
    """The common weights in PyTorch's places."""
    given = gpt_weights()
    with torch.no_grad():

        def lay(parameter: Any, *arrays: np.ndarray) -> None:
            parameter.copy_(torch.from_numpy(np.concatenate(arrays)))

        lay(module.tokens.weight, given["tokens.embedding"])
        lay(module.positions.weight, given["positions.embedding"])
        lay(module.norm.weight, given["norm.scale"])
        for index, block in enumerate(module.blocks):
            kernels = {name: given[f"block_{index}.attention.{name}.kernel"].T for name in ("query", "key", "value", "out")}
            lay(block.projection.weight, kernels["query"], kernels["key"], kernels["value"])
            lay(block.out.weight, kernels["out"])
            lay(block.hidden.weight, given[f"block_{index}.mlp.hidden.kernel"].T)
            lay(block.mlp_out.weight, given[f"block_{index}.mlp.out.kernel"].T)
            for name in ("attention", "mlp"):
                lay(getattr(block, f"{name}_norm").weight, given[f"block_{index}.{name}_norm.scale"])


def images(count: int) -> np.ndarray:
    """Rings of different sizes, [count, 28, 28, 1] uint8."""
    generator = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.arange(28), np.arange(28), indexing="ij")
    distance = np.hypot(rows - 13.5, columns - 13.5)[None]
    rings = np.exp(-((distance - generator.uniform(4, 12, (count, 1, 1))) ** 2) / 4)
    return (255 * rings[..., None]).astype(np.uint8)


class JaxdlGan:
    """`dl.Adversarial` and `dl.train`, the epoch compiled; images stay uint8."""

    def __init__(self) -> None:
        import optax

        import jaxdl as dl
        from jaxdl import models

        adam = optax.adam(2e-4, b1=0.5)
        generator = models.dense_generator(256, 512, 1024, shape=(28, 28, 1))
        self.step = dl.Adversarial(generator, models.dense_discriminator(1024, 512, 256, 128), 128, adam, adam)
        self.images = images(GAN_STEPS * GAN_BATCH)

    def train(self) -> int:
        self._run(1)
        return GAN_STEPS

    def check(self) -> list[float]:
        history = self._run(1)
        return [history["discriminator_loss"][0], history["generator_loss"][0]]

    def _run(self, epochs: int) -> dict[str, Any]:
        import jax

        import jaxdl as dl

        run = dl.train(self.step, self.images, epochs=epochs, batch_size=GAN_BATCH, progress=False, compile="epoch")
        jax.block_until_ready(run.params)
        return run.history


class TorchGan:
    """The loop of PyTorch's own tutorial: fakes once, detached for the discriminator; fused Adams."""

    def __init__(self, way: str) -> None:
        import torch

        del way
        self.torch = torch
        pixels = images(GAN_STEPS * GAN_BATCH).reshape(-1, 784).astype(np.float32) / 255
        self.images = torch.from_numpy(2 * pixels - 1)
        self.criterion = torch.nn.BCEWithLogitsLoss()
        self.reset()

    def reset(self) -> None:
        torch = self.torch
        torch.manual_seed(0)
        self.generator = torch.nn.Sequential(*dense(torch, 128, 256, 512, 1024, 784), torch.nn.Tanh())
        self.discriminator = torch.nn.Sequential(*dense(torch, 784, 1024, 512, 256, 128, 1))
        self.optimizers = [
            torch.optim.Adam(player.parameters(), 2e-4, (0.5, 0.999), fused=True)
            for player in (self.generator, self.discriminator)
        ]

    def train(self) -> int:
        self._epoch()
        return GAN_STEPS

    def check(self) -> list[float]:
        self.reset()
        return self._epoch()

    def _epoch(self) -> list[float]:
        torch, (by_generator, by_discriminator) = self.torch, self.optimizers
        ones, zeros, totals = torch.ones(GAN_BATCH, 1), torch.zeros(GAN_BATCH, 1), torch.zeros(2)
        for rows in torch.randperm(len(self.images)).split(GAN_BATCH):
            fakes = self.generator(torch.randn(GAN_BATCH, 128))
            judged = self.criterion(self.discriminator(self.images[rows]), ones)
            judged = judged + self.criterion(self.discriminator(fakes.detach()), zeros)
            by_discriminator.zero_grad()
            judged.backward()
            by_discriminator.step()
            fooled = self.criterion(self.discriminator(fakes), ones)
            by_generator.zero_grad()
            fooled.backward()
            by_generator.step()
            totals += torch.stack([judged.detach(), fooled.detach()])
        return (totals / GAN_STEPS).tolist()


def dense(torch: Any, *sizes: int) -> list[Any]:
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        linear = torch.nn.Linear(inputs, outputs)
        torch.nn.init.normal_(linear.weight, std=inputs**-0.5)
        torch.nn.init.zeros_(linear.bias)
        layers += [linear, torch.nn.LeakyReLU(0.2)]
    return layers[:-1]


MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("gpt", "jaxdl"): JaxdlGpt,
    ("gpt", "torch"): TorchGpt,
    ("gan", "jaxdl"): JaxdlGan,
    ("gan", "torch"): TorchGan,
}

if __name__ == "__main__":
    main()
