"""The reader: the same bits from the same integers, truth that agrees with itself, splits that cut no patient."""

import hashlib
import pickle
import subprocess
import sys
from dataclasses import fields
from functools import partial

import numpy as np
import pytest

from lingula.corpora.synthetic import FINDINGS, Synthetic, draw, generate
from lingula.corpora.synthetic.chest import chest_of, visit
from lingula.data.study import Study
from lingula.registry import UserError


def drawn(folder) -> dict[str, int]:
    return {"train": 4, "val": 1, "test": 2, "film_size": 48}


DOWNLOADS = {"drawn": drawn}


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    return [study for study in Synthetic(train=700, val=51, test=100, film_size=96).studies() if type(study) is Study]


def known(study: Study) -> tuple:
    """All of a study; two partials are never equal, what they call is."""
    assert isinstance(study.image, partial)
    plain = [getattr(study, f.name) for f in fields(study) if f.name not in ("image", "masks")]
    masks = {name: mask.args if isinstance(mask, partial) else mask for name, mask in study.masks.items()}
    return *plain, masks, study.image.func, study.image.args


def test_an_index_gives_the_same_bits_in_any_order_and_another_index_another_film():
    forwards = [generate(3, index, 64) for index in range(8)]
    backwards = [generate(3, index, 64) for index in reversed(range(8))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert np.array_equal(one.film.pixels, other.film.pixels)
        assert one.sentences == other.sentences
        assert one.film.boxes == other.film.boxes
    films = {example.film.pixels.tobytes() for example in forwards}
    assert len(films) == 8
    assert not np.array_equal(forwards[0].film.pixels, generate(4, 0, 64).film.pixels)


def test_another_process_draws_the_same_bits():
    code = (
        "import hashlib; from lingula.corpora.synthetic import generate; e = generate(5, 77, 96); "
        "print(hashlib.sha256(e.film.pixels.tobytes() + ' '.join(s.text for s in e.sentences).encode()).hexdigest())"
    )
    here = generate(5, 77, 96)
    expected = hashlib.sha256(here.film.pixels.tobytes() + " ".join(s.text for s in here.sentences).encode())
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == expected.hexdigest()


def test_importing_the_corpus_imports_nothing_heavy():
    code = "import sys, lingula.corpora.synthetic; print([m for m in ('cv2', 'torch', 'sklearn') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_a_pickled_study_draws_the_film_of_generate(studies):
    study = pickle.loads(pickle.dumps(studies[17]))
    assert known(study) == known(studies[17])
    pixels = study.image()
    assert pixels.shape == (96, 96)
    assert pixels.dtype == np.uint8
    example = generate(0, 17, 96)
    assert np.array_equal(pixels, example.film.pixels)
    assert np.array_equal(pixels, draw(0, 17, 96))
    assert study.boxes == example.film.boxes
    assert study.sentences == example.sentences
    assert (study.content, study.labels, study.view) == (example.content, example.labels, example.view)


def test_masks_and_boxes_are_known_of_every_finding_there_or_not(studies):
    drawn = set()
    for index in range(6):
        study, example = studies[index], generate(0, index, 96)
        masks = {name: pickle.loads(pickle.dumps(mask))(96, 96) for name, mask in study.masks.items()}
        assert set(masks) == set(study.annotated) == set(FINDINGS)
        assert {name for name, mask in masks.items() if mask.any()} == set(example.film.masks)
        assert all(np.array_equal(masks[name], mask) for name, mask in example.film.masks.items())
        drawn |= set(example.film.masks)
    assert drawn


def test_splits_have_the_asked_sizes_and_share_no_patient(studies):
    assert [sum(study.split == split for study in studies) for split in ("train", "val", "test")] == [700, 51, 100]
    patients = {split: {s.patient_id for s in studies if s.split == split} for split in ("train", "val", "test")}
    assert not patients["train"] & patients["val"]
    assert not patients["train"] & patients["test"]
    assert not patients["val"] & patients["test"]
    assert len({study.study_id for study in studies}) == len(studies)


def test_the_test_set_does_not_depend_on_the_training_set(studies):
    alone = list(Synthetic(train=7, val=0, test=100, film_size=96).studies())[7:]
    assert [known(study) for study in alone] == [known(study) for study in studies if study.split == "test"]


def test_about_15_percent_of_the_patients_have_two_films(studies):
    ids = [study.patient_id for study in studies]
    twice = sum(ids.count(patient) == 2 for patient in set(ids)) / len(set(ids))
    assert 0.11 < twice < 0.19
    assert max(ids.count(patient) for patient in set(ids)) == 2


def test_two_films_of_a_patient_show_the_same_chest():
    pairs = [(index - 1, index) for index in range(1, 120, 2) if visit(0, index).patient == index - 1]
    assert len(pairs) > 5
    for first, second in pairs:
        one, other = chest_of(0, first)[1], chest_of(0, second)[1]
        assert one.places == other.places
        assert one.anatomy.clavicle - one.anatomy.top == pytest.approx(
            other.anatomy.clavicle - other.anatomy.top, abs=0.021
        )
        assert one.anatomy.tilt != other.anatomy.tilt


def test_labels_boxes_and_sentences_agree(studies):
    for study in studies:
        present = {name for name, value in study.labels.items() if value == 1}
        assert tuple(study.labels) == FINDINGS
        assert set(study.labels.values()) <= {0.0, 1.0}
        assert {box.name for box in study.boxes} == present
        assert {sentence.finding for sentence in study.sentences if sentence.finding} == present
        named = {part.split("|")[0] for part in study.content.split("; ")} - {"normal"}
        assert named == present
        for sentence in study.sentences:
            assert (sentence.box is None) == (sentence.finding is None)
            if sentence.box is not None:
                mine = [box for box in study.boxes if box.name == sentence.finding]
                assert sentence.box[0] == min(box.x0 for box in mine)
                assert sentence.box[3] == max(box.y1 for box in mine)
                assert 0 <= sentence.box[0] < sentence.box[2] <= 96


def test_every_finding_is_common_enough_to_learn(studies):
    share = {name: np.mean([study.labels[name] for study in studies]) for name in FINDINGS}
    assert min(share.values()) > 0.04, share
    counts = [sum(study.labels.values()) for study in studies]
    assert 1.4 < np.mean(counts) < 2.1
    assert 0.15 < np.mean([count == 0 for count in counts]) < 0.25
    assert max(counts) >= 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": -1}, "train must be between 0 and 8000000, got -1"),
        ({"test": 2_000_000}, "test must be between 0 and 1000000, got 2000000"),
        ({"train": 0, "val": 0, "test": 0}, "all 0"),
        ({"seed": -3}, "seed must be at least 0, got -3"),
        ({"film_size": 8}, "films are 32 to 2048 pixels wide, got 8"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        Synthetic(**options)


def test_generate_refuses_a_negative_index():
    with pytest.raises(UserError, match="index must be at least 0, got -1"):
        generate(0, -1)
