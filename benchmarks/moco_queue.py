"""Why MoCo's loss rises: `python benchmarks/moco_queue.py CORPUS OUT [SEED]`

Pre-trains MoCo and MoCo v2 by their recipe `scratch` on 3,000 films, and once an epoch asks the loss of a batch twice:
against the queue, keys of up to 32 steps ago by the key encoders of their time, and against the keys that the key
encoder of now gives the same films. Where keys age, a query finds its own among them by its age.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from lingula.commands.pretrain import pretrain
from lingula.losses.queue_nce import queue_nce
from lingula.methods.moco import MoCo
from lingula.methods.moco_v2 import MoCoV2

EPOCH = 93  # steps, of 3,000 films in batches of 32


class Watched:
    """Goes before a method: keeps the films of its queue, to encode them anew."""

    steps = 0
    films: tuple[Any, ...] = ()  # of the batches in the queue: what `encode_keys` takes

    def forward(self: Any, batch: Any) -> Any:
        terms = super().forward(batch)
        self.steps += 1
        if self.steps % EPOCH == 0:
            with torch.no_grad():
                query = self.projection(self.image_encoder(batch.images[:, 0]).pooled)
                key = self.encode_keys(batch.images[:, 1], batch.rows, batch.seed)
                now = torch.cat([self.encode_keys(*films) for films in self.films])
                queues = {"as it is": self.queue.keys, "by the encoder of now": now}
                losses = {name: queue_nce(query, key, keys, self.temperature).mean() for name, keys in queues.items()}
            print(f"| {self.steps // EPOCH} | " + " | ".join(f"{loss:.2f}" for loss in losses.values()) + " |")
        held = len(self.queue.keys) // len(batch)
        self.films = (*self.films, (batch.images[:, 1], batch.rows, batch.seed))[-held:]
        return terms


class WatchedMoCo(Watched, MoCo):
    """MoCo."""


class WatchedMoCoV2(Watched, MoCoV2):
    """MoCo v2."""


def main(corpus: Path, out: Path, seed: int) -> None:
    for name, method in (("moco", WatchedMoCo), ("moco-v2", WatchedMoCoV2)):
        path = f"{__name__}:{method.__name__}"
        print(f"\n{name}\n\n| epoch | loss, the queue as it is | by the encoder of now |\n|---|---|---|", flush=True)
        pretrain(corpus, out / f"{name}-{seed}", method=path, recipe="scratch", seed=seed, allow=[path], quiet=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
