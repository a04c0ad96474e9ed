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
