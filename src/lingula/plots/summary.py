"""What was learned, in tiles: each number of ``summary.json`` as bars beside what it is to be compared with.

Every verdict is a comparison of the numbers at hand; none is written beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Bar:
    """A number in [0, 1], its 95 % interval where there is one, and whether it was measured on this model."""

    name: str
    value: float
    own: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Tile:
    """One measurement: what it is, what it means, how it compares."""

    title: str
    headline: str
    meaning: str
    verdict: str
    bars: list[Bar]


def tiles(summary: dict[str, Any]) -> list[Tile]:
    """The tiles of a summary; parts that it lacks, or that could not be measured (null), are left out."""
    makers = (
        ("probe_auroc", _probe),
        ("retrieval_recall_at_5", _retrieval),
        ("pointing_game", _pointing),
        ("swap_test", _swap),
        ("false_negatives", _false_negatives),
    )
    made = (maker(summary[key]) for key, maker in makers if isinstance(summary.get(key), dict))
    return [tile for tile in made if tile is not None]


def _probe(part: dict[str, Any]) -> Tile | None:
    method = next((name for name in part if name != "random"), None)
    own, random = part.get(method or "") or {}, part.get("random") or {}
    if own.get("mean") is None:
        return None
    bars = [Bar("this model", own["mean"], True, own.get("low"), own.get("high"))]
    verdict = ""
    if random.get("mean") is not None:
        bars.append(Bar("random weights", random["mean"], False, random.get("low"), random.get("high")))
        verdict = _against_random(own, random)
    films = f" of {own['train_studies']:,} labelled training films" if own.get("train_studies") else ""
    return Tile(
        "Linear probe, AUROC",
        f"{own['mean']:.3f}",
        "A linear classifier on the frozen image features tells films with a finding from films without. "
        f"Mean over the findings; fitted on the features{films}; bars with 95 % intervals.",
        verdict,
        [*bars, Bar("chance", 0.5)],
    )


def _against_random(own: dict[str, Any], random: dict[str, Any]) -> str:
    gap = own["mean"] - random["mean"]
    if gap <= 0:
        return f"Not higher than the same encoder with random weights ({gap:+.3f})."
    known = own.get("low") is not None and random.get("high") is not None
    apart = known and own["low"] > random["high"]
    how = "the intervals do not overlap" if apart else "the intervals overlap" if known else "no interval is known"
    return f"Higher than the same encoder with random weights by {gap:.3f}; {how}."


def _retrieval(part: dict[str, Any]) -> Tile | None:
    value, chance, ceiling = (part.get(key) for key in ("value", "chance", "ceiling"))
    if value is None:
        return None
    bars = [Bar("this model", value, True)]
    verdict = ""
    if chance is not None:
        bars.append(Bar("chance", chance))
        verdict = f"{value / chance:.1f} times chance." if value > chance > 0 else "Not above chance."
    if ceiling is not None:
        bars.append(Bar("ceiling", ceiling))
        if chance is not None and value > chance and ceiling > chance:
            verdict += f" {(value - chance) / (ceiling - chance):.0%} of the way from chance to the ceiling."
    return Tile(
        "Film finds its report, recall at 5",
        f"{value:.3f}",
        "How often a film's own report is among the five most similar ones of its pool. Where several reports say the "
        "same, no model can tell them apart: that is the ceiling.",
        verdict,
        bars,
    )


def _pointing(part: dict[str, Any]) -> Tile | None:
    value, chance, untrained = (part.get(key) for key in ("value", "chance", "untrained"))
    if value is None:
        return None
    bars = [Bar("this model", value, True)]
    runs = [run for run in part.get("untrained_runs") or [] if run is not None]
    if untrained is not None:
        spread = (min(runs), max(runs)) if len(runs) > 1 else (None, None)
        bars.append(Bar("untrained", untrained, False, *spread))
    if chance is not None:
        bars.append(Bar("chance", chance))
    return Tile(
        "Pointing game",
        f"{value:.3f}",
        "How often the place where a sentence attends most lies in the box of the finding that it states. Untrained: "
        "the same with random weights, mean (and range) over the seeds.",
        pointing_verdict(value, chance, untrained, runs),
        bars,
    )


def pointing_verdict(value: float, chance: float | None, untrained: float | None, runs: Sequence[float] = ()) -> str:
    """Whether the trained attention points better than chance and than every untrained run, in words.

    Untrained attention points well or badly by luck, so its mean is no bar to clear: its best run is.
    """
    beaten: list[str] = []
    not_beaten: list[str] = []
    if untrained is not None:
        best = max([untrained, *runs])
        name = f"untrained attention ({untrained:.3f}{f', at best {best:.3f}' if len(runs) > 1 else ''})"
        (beaten if value > best else not_beaten).append(name)
    if chance is not None:
        (beaten if value > chance else not_beaten).append(f"chance ({chance:.3f})")
    if not beaten and not not_beaten:
        return ""
    if not not_beaten:
        return f"Trained attention ({value:.3f}) points better than {' and '.join(beaten)}."
    text = f"Trained attention ({value:.3f}) does not point better than {' or '.join(not_beaten)}"
    text += f", though better than {beaten[0]}." if beaten else "."
    return f"{text} These maps are no evidence of where a finding is."


def _swap(part: dict[str, Any]) -> Tile | None:
    right, swapped, chance = (part.get(key) for key in ("right", "swapped", "chance"))
    if right is None or swapped is None:
        return None
    base = chance or 0.0
    if right <= base:
        verdict = "Not above chance even with the right film, so there is nothing to lose by a swap."
    else:
        kept = max(0.0, (swapped - base) / (right - base))
        verdict = (
            f"With another patient's film {kept:.0%} of what lies above chance remains: that much is recognised from "
            "the sentence itself, or is true of many films, and is not read from this film."
        )
    bars = [Bar("right film", right, True), Bar("another's film", swapped, True)]
    return Tile(
        "Swap test",
        f"{right:.3f} / {swapped:.3f}",
        "How often a sentence finds the cross-modal representation made with it among those of the batch, when it was "
        "made from its own film, and when it was made from another patient's. The second should be near chance.",
        verdict,
        bars + ([Bar("chance", chance)] if chance is not None else []),
    )


def _false_negatives(part: dict[str, Any]) -> Tile | None:
    share, precision, recall = (part.get(key) for key in ("share", "precision", "recall"))
    if precision is None or recall is None:
        return None
    bars = [Bar("clusters, precision", precision, True), Bar("clusters, recall", recall, True)]
    equal = part.get("string_equality") or {}
    bars += [Bar(f"equal text, {key}", equal[key]) for key in ("precision", "recall") if equal.get(key) is not None]
    verdict = ""
    if share is not None:
        bars.append(Bar("share of all pairs", share))
        better = precision > share
        verdict = f"A pair that the clusters catch means the same in {precision:.1%} of cases, "
        verdict += f"{'against' if better else 'no more than'} {share:.1%} of all pairs."
    if equal.get("recall") is not None:
        verdict += f" Plain equality of the texts has {_compared(equal.get('precision'), precision)} precision and "
        verdict += f"{_compared(equal['recall'], recall)} recall."
    return Tile(
        "False negatives caught",
        f"{precision:.3f} / {recall:.3f}",
        "Negatives of a batch that in truth mean the same as the anchor: how many of the pairs in one cluster are such "
        "(precision), and how many of such pairs share a cluster (recall).",
        verdict.strip(),
        bars,
    )


def _compared(value: float | None, than: float) -> str:
    if value is None:
        return "unknown"
    return "higher" if value > than else "lower" if value < than else "the same"


def bars(rows: Sequence[Bar]) -> Figure:
    """Horizontal bars on [0, 1] with the number at the right: this model's in colour, what to compare with in grey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 0.22 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.barh(place, row.value, height=0.62, color="#2f86c9" if row.own else "0.62")
        if row.low is not None and row.high is not None:
            axes.hlines(place, row.low, row.high, color=axes.spines["left"].get_edgecolor(), linewidth=1.4)
        axes.text(1.02, place, f"{row.value:.3f}", va="center", transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    return figure
