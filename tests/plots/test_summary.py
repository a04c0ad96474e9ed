import pytest

from lingula.plots.summary import Bar, bars, pointing_verdict, tiles


@pytest.mark.parametrize(
    ("value", "chance", "untrained", "verdict"),
    [
        (0.4, 0.1, 0.2, "Trained attention (0.400) points better than untrained attention (0.200) and chance (0.100)."),
        (
            0.2,
            0.1,
            0.4,
            "does not point better than untrained attention (0.400), though better than chance (0.100). These",
        ),
        (
            0.1,
            0.2,
            0.1,
            "does not point better than untrained attention (0.100) or chance (0.200). These maps are no evidence",
        ),
        (
            0.2,
            0.3,
            0.1,
            "does not point better than chance (0.300), though better than untrained attention (0.100). These",
        ),
        (0.2, 0.1, None, "Trained attention (0.200) points better than chance (0.100)."),
        (0.2, None, None, ""),
    ],
)
def test_pointing_verdict_follows_the_numbers(value, chance, untrained, verdict):
    assert verdict in pointing_verdict(value, chance, untrained)
    if value > max(chance or 0, untrained or 0):
        assert "no evidence" not in pointing_verdict(value, chance, untrained)


def test_the_bar_to_clear_is_the_luckiest_untrained_run():
    lucky = pointing_verdict(0.34, 0.25, 0.28, [0.23, 0.27, 0.345])
    assert "does not point better than untrained attention (0.280, at best 0.345)" in lucky
    assert "points better than untrained" in pointing_verdict(0.35, 0.25, 0.28, [0.23, 0.27, 0.345])


def only(**summary):
    (tile,) = tiles(summary)
    return tile


def probe(low, mean, high):
    return {"mean": mean, "low": low, "high": high}


def test_probe_against_random_weights():
    random = probe(0.55, 0.60, 0.65)
    apart = only(probe_auroc={"cm-cgns": probe(0.7, 0.8, 0.9), "random": random})
    assert apart.verdict == "Higher than the same encoder with random weights by 0.200; the intervals do not overlap."
    near = only(probe_auroc={"cm-cgns": probe(0.6, 0.7, 0.8), "random": random})
    assert near.verdict.endswith("by 0.100; the intervals overlap.")
    worse = only(probe_auroc={"cm-cgns": probe(0.4, 0.5, 0.6), "random": random})
    assert worse.verdict == "Not higher than the same encoder with random weights (-0.100)."
    assert apart.bars == [
        Bar("this model", 0.8, True, 0.7, 0.9),
        Bar("random weights", 0.60, False, 0.55, 0.65),
        Bar("chance", 0.5),
    ]


def test_retrieval_between_chance_and_ceiling():
    tile = only(retrieval_recall_at_5={"value": 0.45, "chance": 0.05, "ceiling": 0.85})
    assert tile.verdict == "9.0 times chance. 50% of the way from chance to the ceiling."
    assert only(retrieval_recall_at_5={"value": 0.05, "chance": 0.05, "ceiling": 0.85}).verdict == "Not above chance."
    assert only(retrieval_recall_at_5={"value": 0.45, "chance": 0.05, "ceiling": None}).verdict == "9.0 times chance."


def test_swap_says_how_much_remains():
    assert "film 75% of" in only(swap_test={"right": 0.9, "swapped": 0.7, "chance": 0.1}).verdict
    assert "film 0% of" in only(swap_test={"right": 0.9, "swapped": 0.05, "chance": 0.1}).verdict
    assert "Not above chance" in only(swap_test={"right": 0.1, "swapped": 0.1, "chance": 0.1}).verdict


def test_false_negatives_against_all_pairs_and_equal_text():
    part = {"share": 0.1, "precision": 0.25, "recall": 0.5, "string_equality": {"precision": 1.0, "recall": 0.25}}
    verdict = only(false_negatives=part).verdict
    assert verdict.startswith(
        "A pair that the clusters catch means the same in 25.0% of cases, against 10.0% of all pairs."
    )
    assert verdict.endswith("Plain equality of the texts has higher precision and lower recall.")
    assert "no more than 30.0%" in only(false_negatives={**part, "share": 0.3}).verdict


def test_what_could_not_be_measured_is_no_tile():
    assert tiles({}) == []
    assert tiles({"seconds": 1.0, "swap_test": None, "pointing_game": {"value": None, "chance": None}}) == []
    assert (
        tiles({"false_negatives": {"share": None, "precision": None, "recall": None}, "probe_auroc": {"random": {}}})
        == []
    )


def test_bars_are_as_long_as_their_numbers():
    axes = bars([Bar("this model", 0.25, True, 0.2, 0.3), Bar("chance", 0.5)]).axes[0]
    assert [patch.get_width() for patch in axes.patches] == [0.25, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["this model", "chance"]
    assert [text.get_text() for text in axes.texts] == ["0.250", "0.500"]
    assert axes.get_xlim() == (0, 1)
