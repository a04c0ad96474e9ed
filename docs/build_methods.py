"""Write docs/methods/*.md from the source of the methods and the tables that were measured: `make docs`.

A page says only what stands elsewhere: the method's module (what it is, what it learns from, its loss, what differs
from its paper), its class (options, recipes), and its row in benchmarks/comparison/*.md. tests/test_docs.py fails where
a page is not what this file would write.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from lingula.methods import METHODS
from lingula.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
HEADINGS = ("Learns from:", "Loss:", "Differs from the paper:")
MEASURED = (
    "By the recipe `scratch`, ten epochs, three pre-trainings with seeds 0, 1 and 2 (mean ± standard deviation); all "
    "methods side by side, with the commands, in [comparison](../comparison.md)."
)
MORE = {"cm-cgns": "[What the paper leaves open, and what to know before believing it](../cm-cgns.md)."}
SHOWN = (  # of a recipe, and what the page calls it
    ("image_encoder", "image encoder"),
    ("text_encoder", "text encoder"),
    ("pretrained", "published weights"),
    ("frozen_text_layers", "frozen text layers"),
    ("image_size", "pixels"),
    ("batch_size", "batch"),
    ("optimizer", "optimiser"),
    ("learning_rate", "learning rate"),
    ("text_learning_rate", "of the text encoder"),
    ("weight_decay", "weight decay"),
    ("schedule", "schedule"),
    ("warmup_epochs", "warm-up epochs"),
    ("clip", "clip"),
    ("sentences", "sentences"),
    ("augmentation", "views"),
    ("options", "options"),
)


def page(name: str) -> str:
    """The page of one method."""
    method = METHODS[name]
    module = inspect.getmodule(method)
    assert module is not None
    title, prose, parts = sections(inspect.cleandoc(module.__doc__ or ""))
    short, _, long = title.partition(": ")
    source = Path(module.__file__ or "").relative_to(ROOT).as_posix()
    test = f"tests/methods/test_{Path(source).stem}.py"
    lines = [
        f"<!-- Written by docs/build_methods.py from {source}; change that, then `make docs`. -->",
        "",
        f"# {short}",
        "",
        linked(long) + ".",
        "",
        prose,
        "",
        "```bash",
        f"lingula pretrain --method {name} --recipe scratch --corpus data/phantoms --out runs/{name}",
        "```",
        "",
        "## What it learns from",
        "",
        parts["Learns from:"],
        "",
        "## Its loss",
        "",
        parts["Loss:"],
        "",
        "## Its recipes",
        "",
        recipes(method),
        "",
        "## Its options",
        "",
        options(method),
        "",
        "## What differs from the paper",
        "",
        parts["Differs from the paper:"],
        "",
        *measured(name),
        "## Where to look",
        "",
        f"[`{source}`](../../{source}), held against literal references in "
        f"[`{test}`](../../{test}). {MORE.get(name, '')}".rstrip(),
        "",
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def sections(text: str) -> tuple[str, str, dict[str, str]]:
    """A module's docstring: its first line, the prose, and what stands under each of :data:`HEADINGS`.

    Raises:
        ValueError: if a heading is missing or out of order.
    """
    first, _, rest = text.partition("\n")
    places = [rest.find(f"\n{heading}") for heading in HEADINGS]
    if -1 in places or places != sorted(places):
        raise ValueError(f"{first}: the docstring needs the headings {', '.join(HEADINGS)} in this order")
    ends = [*places[1:], len(rest)]
    found = {
        heading: markdown(rest[place + 1 + len(heading) : end])
        for heading, place, end in zip(HEADINGS, places, ends, strict=True)
    }
    return first.rstrip("."), markdown(rest[: places[0]]), {key: sentence(text) for key, text in found.items()}


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def markdown(text: str) -> str:
    """The docstrings' reStructuredText, as far as they use it, as Markdown."""
    text = re.sub(r"(?m)^\.\. math::[ ]*((?:.*\n?)(?:(?:[ ]+.*)?\n)*)", _formula, text.strip() + "\n")
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r":(?:func|class|data|meth|mod):`~?([^`]+)`", r"`\1`", text)
    return re.sub(r"(?<!`)``(?!`)", "`", text).strip()


def _formula(match: re.Match[str]) -> str:
    lines = [line.strip() for line in match[1].splitlines() if line.strip()]
    return "```math\n" + "\n".join(lines) + "\n```\n\n"


def linked(title: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", title)


def recipes(method: Any) -> str:
    """A table of the recipes side by side; left out is a line where all have the library's default, and the text
    encoder of a method that has none."""
    default, named = Recipe(stages=()), method.recipes
    rows = [["", *(f"`{name}`" for name in named)]]
    rows.append(["stages", *("; ".join(stage(s) for s in recipe.stages) for recipe in named.values())])
    for field, called in SHOWN:
        if field == "text_encoder" and not method.uses_text:
            continue
        values = [getattr(recipe, field) for recipe in named.values()]
        always = field in ("image_encoder", "text_encoder", "batch_size", "optimizer", "learning_rate")
        if always or any(value != getattr(default, field) for value in values):
            rows.append([called, *(cell(value) for value in values)])
    return table(rows)


def stage(of: Any) -> str:
    weights = ", ".join(f"{weight:g} {term}" for term, weight in of.weights.items())
    rate = "" if of.learning_rate is None else f" at {of.learning_rate:g}"
    warmup = "" if of.warmup_epochs is None else f", {of.warmup_epochs:g} of them warm-up"
    return f"{of.epochs:g} epochs{rate}{warmup}: {weights}"


def cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if dataclasses.is_dataclass(value):  # an Augmentation
        changed = {
            f.name: getattr(value, f.name) for f in dataclasses.fields(value) if getattr(value, f.name) != f.default
        }
        return cell(changed) if changed else "a window"
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(one)}" for key, one in value.items()) or "–"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(cell(one) for one in value) + ")"
    return str(value)


def options(method: Any) -> str:
    """The arguments of the class as its docstring has them, with their defaults."""
    text = inspect.cleandoc(method.__doc__ or "").partition("Args:\n")[2]
    text = re.split(r"\n(?=\S)", text)[0]  # until the next heading
    defaults = {name: p.default for name, p in inspect.signature(method).parameters.items()}
    rows = [["option", "default", ""]]
    for entry in re.split(r"\n(?=    \S)", text):
        names, _, what = " ".join(entry.split()).partition(": ")
        known = [
            name
            for name in names.split(", ")
            if defaults.get(name, inspect.Parameter.empty) is not inspect.Parameter.empty
        ]
        if known:
            rows.append(
                [", ".join(f"`{n}`" for n in known), ", ".join(cell(defaults[n]) for n in known), markdown(what)]
            )
    return table(rows) if len(rows) > 1 else "None."


def table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def measured(name: str) -> list[str]:
    """The method's line of every table in benchmarks/comparison that has numbers of it, beside random weights."""
    lines: list[str] = []
    for path in sorted((ROOT / "benchmarks" / "comparison").glob("*.md")):
        for title, heading, body in tables_in(path.read_text(encoding="utf-8")):
            own = [row for row in body if row[0].strip("*").lower().replace(" ", "-") == name]
            random = [row for row in body if row[0].startswith("Random")]
            if own and any(text != "–" for text in own[0][1:]):
                lines += [f"**{title}** ([{path.stem}](../../benchmarks/comparison/{path.name}))", ""]
                lines += [table([heading, *([text.strip("*") for text in row] for row in [*random, *own])]), ""]
    return ["## Measured", "", MEASURED, "", *lines] if lines else []


def tables_in(text: str) -> list[tuple[str, list[str], list[list[str]]]]:
    """``(title, heading, rows)`` of the tables that `lingula benchmark` wrote."""
    found = []
    for title, block in re.findall(r"(?m)^## (.+)\n\n((?:\|.*\n)+)", text):
        rows = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        found.append((title, rows[0], rows[2:]))
    return found


def index() -> str:
    """The page that lists them."""
    rows = [["method", "learns from", "what it does"]]
    for name in METHODS.paths:
        module = inspect.getmodule(METHODS[name])
        learns = sections(inspect.cleandoc(getattr(module, "__doc__", "") or ""))[2]["Learns from:"]
        rows.append([f"[{name}]({name}.md)", " ".join(learns.rstrip(".").split()), markdown(METHODS.summary(name))])
    return "\n".join(
        [
            "<!-- Written by docs/build_methods.py from src/lingula/methods; `make docs`. -->",
            "",
            "# The methods",
            "",
            "All on the same encoders, data, loop and evaluation. The initialisations that they stand beside, `random`",
            "and `imagenet` weights, are named in a [benchmark](../benchmark.md)'s file with `init`.",
            "",
            table(rows),
            "",
        ]
    )


def pages() -> dict[Path, str]:
    """Every page and its text."""
    folder = ROOT / "docs" / "methods"
    return {folder / "README.md": index()} | {folder / f"{name}.md": page(name) for name in METHODS.paths}


def main() -> int:
    written = pages()
    for old in (ROOT / "docs" / "methods").glob("*.md"):
        if old not in written:
            old.unlink()
    for path, text in written.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"docs/methods: {len(written)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
