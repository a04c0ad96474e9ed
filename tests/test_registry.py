"""Names to classes."""

import sys

import pytest

from lingula.registry import Registry, UserError, check_options, nearest

SHAPES = Registry("shape", {"counter": "collections:Counter", "wave": "wave:Wave_read"})


def test_indexing_resolves():
    from collections import Counter

    assert SHAPES["counter"] is Counter


def test_listing_imports_nothing():
    sys.modules.pop("wave", None)
    assert list(SHAPES) == ["counter", "wave"]
    assert len(SHAPES) == 2
    assert "wave" in SHAPES
    assert "wave" not in sys.modules


def test_asking_whether_a_name_is_known():
    assert "cuonter" not in SHAPES
    assert 3 not in SHAPES


def test_unknown_names():
    with pytest.raises(UserError, match=r"unknown shape 'conter'; did you mean 'counter'\?"):
        SHAPES["conter"]
    with pytest.raises(UserError, match=r"unknown shape 'zzz'; known: counter, wave"):
        SHAPES["zzz"]


def test_nearest():
    assert nearest("resnet05", ["vit", "resnet50"]) == "; did you mean 'resnet50'?"
    assert nearest("abc", ["xyz"]) == ""


class Thing:
    def __init__(self, width: int, depth: int = 1) -> None: ...


def test_options():
    check_options("thing", Thing, {"width": 1, "depth": 2})
    with pytest.raises(UserError, match=r"thing has no option 'widht'; did you mean 'width'\?"):
        check_options("thing", Thing, {"depth": 2, "widht": 1})
    with pytest.raises(UserError, match=r"thing has no option 'zzz'; known: width, depth"):
        check_options("thing", Thing, {"zzz": 1})
    with pytest.raises(UserError, match="no option 'self'"):
        check_options("thing", Thing, {"self": 1})
    with pytest.raises(UserError, match="thing has no option 'width'"):
        check_options("thing", Thing, {"width": 1}, not_options=("width",))


class Kinds:
    def __init__(
        self, on: bool = False, count: int = 2, share: float = 0.5, word: str = "a", widths: tuple[int, ...] = (1,)
    ) -> None: ...


@pytest.mark.parametrize("options", [{"on": True}, {"count": 3}, {"share": 1}, {"word": "b"}, {"widths": [8, 8]}])
def test_options_of_the_right_kind(options):
    check_options("thing", Kinds, options)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("on", "maybe", "option 'on' must be true or false, got 'maybe'"),
        ("on", 1, "option 'on' must be true or false, got 1"),
        ("count", "many", "option 'count' must be a whole number, got 'many'"),
        ("count", 2.5, "option 'count' must be a whole number, got 2.5"),
        ("count", True, "option 'count' must be a whole number, got True"),
        ("share", "half", "option 'share' must be a number, got 'half'"),
        ("share", None, "option 'share' must be a number, got None"),
        ("word", 3, "option 'word' must be a word, got 3"),
        ("widths", "wide", "option 'widths' must be a list, got 'wide'"),
    ],
)
def test_options_of_another_kind(option, value, message):
    with pytest.raises(UserError, match=message):
        check_options("thing", Kinds, {option: value})
