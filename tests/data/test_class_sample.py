"""Draws by class, against their definition written out once more, and against what they promise."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter

import pytest

from lingula.data.class_sample import hash_order, only_class, sample_by_class
from lingula.records import id_hash
from lingula.registry import UserError

IDS = [f"film{number}" for number in range(300)]
CLASSES = [None if number % 7 == 0 else "abc"[number % 3] for number in range(300)]


def drawn(ids, classes, per_class=20, seed=0, wanted=()):
    return [ids[place] for place in sample_by_class(ids, classes, per_class, seed, wanted)]


def test_the_first_by_hash_of_every_class_are_drawn():
    expected = set()
    for name in "abc":
        own = [film for film, of in zip(IDS, CLASSES, strict=True) if of == name]
        own.sort(key=lambda film: int(hashlib.sha256(b"5:" + film.encode()).hexdigest(), 16))
        expected |= set(own[:20])
    places = sample_by_class(IDS, CLASSES, 20, 5)
    assert places == sorted(places)
    assert {IDS[place] for place in places} == expected
    assert Counter(CLASSES[place] for place in places) == {"a": 20, "b": 20, "c": 20}


def test_a_draw_does_not_depend_on_the_order_and_hardly_on_the_others():
    first = set(drawn(IDS, CLASSES))
    order = list(range(300))
    random.Random(1).shuffle(order)
    assert set(drawn([IDS[n] for n in order], [CLASSES[n] for n in order])) == first
    assert set(drawn(IDS, CLASSES, seed=1)) != first
    more = set(drawn([*IDS, *(f"new{n}" for n in range(5))], [*CLASSES, *"aaaaa"]))
    assert len(first - more) <= 5
    assert {film for film in first if CLASSES[IDS.index(film)] != "a"} <= more
    gone = next(film for film in IDS if film not in first)
    rest = [n for n in range(300) if IDS[n] != gone]
    assert set(drawn([IDS[n] for n in rest], [CLASSES[n] for n in rest])) == first


def test_the_order_of_keys_is_that_of_their_hashes():
    keys = [f"patient{number:05}" for number in range(50)]
    expected = sorted(keys, key=lambda key: hashlib.sha256(f"3:{key}".encode()).hexdigest())
    assert hash_order(keys, 3) == hash_order(reversed(keys), 3) == expected
    assert hash_order(keys, 4) != expected


def test_too_few_of_a_class_are_refused_with_counts():
    with pytest.raises(UserError, match=r"^3 of each class are wanted, and there are too few of: edema 0, effusion 2$"):
        sample_by_class(list("pqrstu"), ["effusion", "effusion", "lung", "lung", "lung", None], 3, 0, ["edema", "lung"])
    with pytest.raises(ValueError, match=r"ids must differ, got 2 different ones among 3"):
        sample_by_class(["x", "x", "y"], ["a", "a", "a"], 1, 0)


def test_the_hash_of_ids():
    assert id_hash(["b", "a"]) == id_hash(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest()[:16]
    assert id_hash(["ab"]) != id_hash(["a", "b"])


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ({"a": 1}, "a"),
        ({"b": 1, "a": 0, "x": 0}, "b"),
        ({"a": 1, "b": 1}, None),
        ({"a": 1, "b": -1}, None),
        ({"a": 1, "x": 1}, None),
        ({"a": 1, "x": -1}, None),
        ({"a": -1}, None),
        ({"x": 1}, None),
        ({}, None),
        ({"a": 1, "free": 1}, "a"),
    ],
)
def test_the_only_class(marked, expected):
    labels = dict.fromkeys(["a", "b", "x", "free"], math.nan) | marked
    assert only_class(labels, ["a", "b"], ["x"]) == expected
