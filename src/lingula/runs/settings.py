"""What a run of ``lingula pretrain`` is made from. Floor 4."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lingula.data.prepared import PreparedCorpus
from lingula.data.shards import ShardedCorpus
from lingula.methods import METHODS
from lingula.nn.text_encoders import SMALL_BERT
from lingula.registry import UserError
from lingula.runs.build import takes
from lingula.runs.recipes import INSTEAD, LAUNCH, MAKING, recipe_of, resolve
from lingula.training.devices import precision_of
from lingula.training.recipe import Recipe


@dataclass(frozen=True)
class Settings:
    """Everything that a run is made from.

    Attributes:
        corpus: folder of a prepared corpus, or folder or URL of shards.
        method, recipe: names.
        plan: the recipe with what was given instead.
        seed, accumulate, vocabulary: as in :func:`lingula.commands.pretrain.pretrain`.
        precision: as Fabric names it.
        launch: how the run is computed and logged.
    """

    corpus: str
    method: str
    recipe: str
    plan: Recipe
    seed: int
    accumulate: int
    vocabulary: int
    precision: str
    launch: dict[str, Any]

    @property
    def processes(self) -> int:
        """On all machines together."""
        return int(self.launch["devices"] * self.launch["nodes"])

    def made(self, opened: PreparedCorpus | ShardedCorpus) -> dict[str, Any]:
        """For ``run.json``."""
        return {
            "method": self.method,
            "recipe": self.recipe,
            "options": self.plan.options,
            "plan": dataclasses.asdict(self.plan),
            "image_encoder": self.plan.image_encoder if takes(self.method, "image_encoder") else None,
            "text_encoder_name": self.plan.text_encoder if takes(self.method, "text_encoder") else None,
            "image_size": self.plan.image_size,
            "resize_to": self.plan.resize_to,
            "seed": self.seed,
            "accumulate": self.accumulate,
            "vocabulary": self.vocabulary,
            "processes": self.processes,
            "precision": self.precision,
            "launch": self.launch,
            "corpus": {
                "name": opened.name,
                "fingerprint": opened.fingerprint,
                "folder": absolute(self.corpus),
                "shards": isinstance(opened, ShardedCorpus),
            },
        }


def asked(given: dict[str, Any]) -> Settings:
    """The settings of a fresh run.

    Args:
        given: the arguments of :func:`lingula.commands.pretrain.pretrain` that are not ``None``.
    Raises:
        UserError: for an unknown method or recipe, lengths that fit no stages, or the weight of a term that is none.
    """
    making = {name: given.get(name, default) for name, default in MAKING.items()}
    recipe = recipe_of(making["method"], making["recipe"])
    _check_towers(making["method"], given)
    instead = {name: given.get(name) for name in INSTEAD} | given_files(given)
    plan = resolve(recipe, instead, given.get("epochs"), given.get("options", {}), given.get("weights", {}))
    launch = {name: given.get(name, default) for name, default in LAUNCH.items()}
    precision = precision_of(plan.precision, launch["accelerator"])
    return Settings(corpus=str(given["corpus"]), plan=plan, precision=precision, launch=launch, **making)


def _check_towers(method: str, given: dict[str, Any]) -> None:
    """Refuse to name an encoder for a method that has its own."""
    own = {option: option.replace("weights", "encoder") for option in ("image_encoder", "image_weights")}
    if METHODS[method].uses_text:
        own["text_encoder"] = "text_encoder"
    for option, tower in own.items():
        if option in given and not takes(method, tower):
            raise UserError(f"--{option}: method '{method}' has its own {tower.replace('_', ' ')}")


def given_files(given: dict[str, Any]) -> dict[str, str]:
    """The weights that are given as files or folders, so named that they are found from any folder."""
    named = {name: str(given[name]) for name in ("image_weights", "text_encoder") if name in given}
    return {name: path if path == SMALL_BERT else absolute(path) for name, path in named.items()}


def absolute(path: str) -> str:
    """A file or folder from the root, so that it is found from any folder; a URL or a name as it is."""
    return str(Path(path).resolve()) if "://" not in path and Path(path).exists() else path
