"""Reports side by side: sentences drawn at random, and packed rows."""

import numpy as np
import pytest

from lingula.data.collate import collate_reports, draw_sentences, pack
from lingula.data.tokens import tokenise, train_tokenizer
from lingula.registry import UserError

SENTENCES = [
    "No pleural effusion.",
    "The heart is normal in size.",
    "Small left effusion.",
    "No pleural effusion.",
    "No pneumothorax.",
    "The heart is enlarged.",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [sentence.lower() for sentence in SENTENCES] * 3
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), vocabulary=120)


def spoken(reports, row, tokenizer):
    """The sentences of a collated report in the order of their numbers, and the tokens around them."""
    own = (reports.report_of_sentence == row).nonzero()[:, 0].tolist()
    places = reports.sentence_of_token[row]
    texts = [tokenizer.decode(reports.token_ids[row][places == number]) for number in own]
    ids = reports.token_ids[row][reports.token_mask[row]].tolist()
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    inside = [number for number in places.tolist() if number >= 0]
    assert inside == sorted(inside)  # side by side, in their new order
    assert tokenizer.decode(ids[1:-1]) == " ".join(texts)
    return texts


@pytest.fixture(scope="module")
def longer(tokenizer):
    reports = [SENTENCES[:count] for count in (1, 2, 6, 4, 6)]
    return tokenise(reports, tokenizer), reports


@pytest.mark.parametrize("how", ["one", "shuffled", "swapped"])
def test_sentences_at_random_are_sentences_of_the_report(tiny, longer, tokenizer, how):
    tokens, reports = longer
    rows = np.array([4, 0, 2, 1, 3])
    seen = set()
    for seed in range(30):
        batch = collate_reports(tokens, rows, sentences=how, seed=seed)
        for place, row in enumerate(rows):
            said = spoken(batch, place, tokenizer)
            known = [
                tokenizer.decode(tokenizer(s.lower(), add_special_tokens=False)["input_ids"]) for s in reports[row]
            ]
            if how == "one":
                assert len(said) == 1
                assert said[0] in known
            else:
                assert sorted(said) == sorted(known)
            keys = batch.sentence_key[batch.report_of_sentence == place] - tokens.first_sentence[row]
            assert said == [known[key] for key in keys]
            joined = "".join("".join(text.split()) for text in said)
            assert "".join(tiny.words_of(batch, place, tokenizer)) == joined.replace("##", "")
            seen.add((row, tuple(keys.tolist())))
        assert batch.max_words == batch.word_of_token.max() + 1
        assert batch.max_sentences == np.bincount(batch.report_of_sentence).max()
        assert batch.position_of_sentence.tolist() == [
            n for count in np.bincount(batch.report_of_sentence) for n in range(count)
        ]
    assert len({keys for row, keys in seen if row == 4}) >= 5  # and not always the same


def test_the_draw_of_a_report_is_a_function_of_seed_and_row(longer):
    tokens, _ = longer
    for how in ("one", "shuffled", "swapped"):
        both = collate_reports(tokens, np.array([2, 4]), sentences=how, seed=9)
        alone = collate_reports(tokens, np.array([4]), sentences=how, seed=9)
        assert both.sentence_key[both.report_of_sentence == 1].tolist() == alone.sentence_key.tolist()


def test_how_often_each_sentence_and_order_comes(longer):
    """One of six sentences each as often; a shuffled one first as often; a swap after a swap in 60 of 100."""
    counts = np.full(6000, 6)
    rows = np.arange(6000)
    chosen, kept = draw_sentences("one", counts, 0, rows)
    assert (kept == 1).all()
    assert np.abs(np.bincount(chosen[:, 0], minlength=6) - 1000).max() < 140  # 4.8 standard deviations
    shuffled, _ = draw_sentences("shuffled", counts, 0, rows)
    assert (np.sort(shuffled, 1) == np.arange(6)).all()
    for place in range(6):
        assert np.abs(np.bincount(shuffled[:, place], minlength=6) - 1000).max() < 140
    swapped, _ = draw_sentences("swapped", counts, 0, rows)
    assert (np.sort(swapped, 1) == np.arange(6)).all()
    # Swaps at random: each moves two of six sentences, or, one time in six, none.
    kept_order, none = 0.4, (swapped == np.arange(6)).all(1).mean()
    assert kept_order + 0.24 / 6 < none < kept_order + 0.24 / 6 + 0.05
    pairs = [draw_sentences("swapped", np.full(9, 1), seed, np.arange(9))[0] for seed in range(3)]
    assert all((order == 0).all() for order in pairs)


def test_another_way_to_draw_sentences(longer):
    with pytest.raises(UserError, match="sentences must be one of whole, one, shuffled, swapped, got 'two'"):
        collate_reports(longer[0], np.array([0]), sentences="two")


# Packed rows.


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_token_is_in_one_slot_of_one_row(count):
    lengths = np.random.default_rng(count).integers(3, 40, count)
    packing = pack(lengths)
    longest = lengths.max()
    assert packing.slot.shape == (count, longest)
    width = packing.token.shape[1]
    assert width % 8 == 0
    token, report, position = (x.flatten().tolist() for x in (packing.token, packing.report, packing.position))
    found = [(r, p, t) for r, p, t in zip(report, position, token, strict=True) if r >= 0]
    assert sorted(found) == [(r, p, r * longest + p) for r in range(count) for p in range(lengths[r])]
    for r in range(count):
        slots = packing.slot[r, : lengths[r]].tolist()
        assert slots == list(range(slots[0], slots[0] + lengths[r]))  # side by side
        assert slots[0] // width == slots[-1] // width  # in one row
        assert [report[s] for s in slots] == [r] * lengths[r]
        assert (packing.slot[r, lengths[r] :] == 0).all()


def test_nine_of_ten_slots_are_used():
    """Reports as long as MIMIC-CXR's are, log-normal about 90 tokens, cut at 256."""
    lengths = np.random.default_rng(0).lognormal(np.log(90), 0.5, 6400).clip(5, 256).astype(int).reshape(100, 64)
    used = [of_batch.sum() / pack(of_batch).token.numel() for of_batch in lengths]
    assert min(used) > 0.9
    assert np.mean(used) > 0.95


def test_a_collated_batch_is_packed_as_it_is_padded(longer):
    tokens, _ = longer
    for how in ("whole", "one", "shuffled"):
        reports = collate_reports(tokens, np.array([4, 0, 2, 1, 3]), sentences=how, seed=1)
        packing = reports.packing
        ids = reports.token_ids.flatten()[packing.token]
        assert ids.flatten()[packing.slot][reports.token_mask].equal(reports.token_ids[reports.token_mask])
        assert int((packing.report >= 0).sum()) == int(reports.token_mask.sum())
