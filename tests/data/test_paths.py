"""Files found by the names that tables give them: a table of what is there, what is asked, and what must come."""

import itertools
import unicodedata

import pytest

from lingula.data.paths import Folder, Match, Names, listed

DECOMPOSED = unicodedata.normalize("NFD", "Röntgen/Größe.png")
COMPOSED = unicodedata.normalize("NFC", DECOMPOSED)
TURNED = "turning backslashes into slashes"
CASES = [  # there, asked, found, by
    (["p1/a.png"], "p1/a.png", "p1/a.png", ""),
    (["p1/a.png"], "./p1/a.png", "p1/a.png", ""),
    (["p1/a.png"], "p1\\a.png", "p1/a.png", TURNED),
    (["p1/a.png"], ".\\p1\\a.png", "p1/a.png", TURNED),
    ([DECOMPOSED], COMPOSED, DECOMPOSED, "changing the Unicode form"),
    ([COMPOSED], DECOMPOSED, COMPOSED, "changing the Unicode form"),
    ([DECOMPOSED], COMPOSED.upper(), DECOMPOSED, "changing the letter case"),
    (["IMG.PNG"], "img.png", "IMG.PNG", "changing the letter case"),
    (["P1/img.png"], "p1/IMG.png", "P1/img.png", "changing the letter case"),
    (["a.jpeg", "b.jpg"], "a.jpg", "a.jpeg", "respelling the ending"),
    (["a.dicom"], "A.DCM", "a.dicom", "respelling the ending"),
    (["0001.dcm", "0002.png"], "0001", "0001.dcm", "adding the ending"),
    (["0001.dcm", "0001.txt", "0001.json"], "0001", "0001.dcm", "adding the ending"),
    (["1.2.840.7.dcm"], "1.2.840.7", "1.2.840.7.dcm", "adding the ending"),
    (["p1/A.PNG"], "p1/a", "p1/A.PNG", "adding the ending and changing the letter case"),
    (["p1/a.png", "p2/b.png"], "b.png", "p2/b.png", "searching subfolders"),
    (["x/p1/a.png"], "p1/a.png", "x/p1/a.png", "searching subfolders"),
    (["x/p1/a.png"], "p1\\a", "x/p1/a.png", f"{TURNED} and adding the ending and searching subfolders"),
    (["IM1", "p/IM2"], "IM2", "p/IM2", "searching subfolders"),
    # a smaller change goes before a larger one
    (["img.png", "IMG.png"], "img.png", "img.png", ""),
    (["IMG.png", "p/img.png"], "img.png", "IMG.png", "changing the letter case"),
    (["a.dcm", "p/a.dcm"], "a", "a.dcm", "adding the ending"),
    (["p/img.png", "p/IMG.png"], "img.png", "p/img.png", "searching subfolders"),
]
UNCLEAR = [  # there, asked, all that fit
    (["IMG.png", "Img.png"], "img.png", ("IMG.png", "Img.png")),
    (["0001.dcm", "0001.png"], "0001", ("0001.dcm", "0001.png")),
    (["p2/a.png", "p1/a.png"], "a.png", ("p1/a.png", "p2/a.png")),
    (["p1/a.dcm", "p2/a.png"], "a", ("p1/a.dcm", "p2/a.png")),
]
MISSING = [  # there, asked, what is near
    (["a.png"], "a.jpg", ("a.png",)),
    (["p2/a.png"], "p1/a.png", ("p2/a.png",)),
    (["p1/a.png"], "films/p1/a.png", ("p1/a.png",)),
    (["p1/a.png"], "D:\\films\\p1\\a.png", ("p1/a.png",)),
    (["a.txt"], "a", ()),
    (["ab.png"], "b.png", ()),
    (["xp1/a.png"], "p1/a.png", ("xp1/a.png",)),
    (["10.png"], "1", ()),
    (["0001.png", "p/001.dcm", "x1.png"], "1", ("0001.png", "p/001.dcm")),
    (["0001.png"], "01.png", ("0001.png",)),
    ([], "a.png", ()),
]


def make(root, paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return Folder(root)


@pytest.mark.parametrize(("there", "asked", "found", "how"), CASES)
def test_one_that_fits_is_found(tmp_path, there, asked, found, how):
    for order in itertools.permutations(there):
        assert Names(order).find(asked) == Match(found, how)
    match = make(tmp_path, there).find(asked)
    assert (tmp_path / match.path).samefile(tmp_path / found)
    assert match.how == how


@pytest.mark.parametrize(("there", "asked", "fits"), UNCLEAR)
def test_several_that_fit_are_named_and_none_is_taken(tmp_path, there, asked, fits):
    assert Names(there).find(asked) == make(tmp_path, there).find(asked) == Match(None, fits=fits)


@pytest.mark.parametrize(("there", "asked", "near"), MISSING)
def test_another_image_is_not_taken_but_named(tmp_path, there, asked, near):
    assert Names(there).find(asked) == make(tmp_path, there).find(asked) == Match(None, near=near)


def test_hidden_files_and_folders_of_masks_are_not_searched(tmp_path):
    folder = make(tmp_path, ["p/a.png", "p/._a.png", ".old/a.png", "masks/a.png", "p/masks/b.png"])
    assert folder.find("a.png").fits == ("masks/a.png", "p/a.png")
    assert Folder(tmp_path, without=[tmp_path / "masks", tmp_path / "none"]).find("a.png").path == "p/a.png"


def test_links_are_followed_once(tmp_path):
    make(tmp_path / "far", ["a.png"])
    make(tmp_path / "root", ["b.png"])
    (tmp_path / "root" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    folder = Folder(tmp_path / "root")
    assert folder.find("a.png").path == "link/a.png"
    assert folder.find("B.png").path == "b.png"


def test_a_folder_is_listed_only_when_a_name_is_no_path(tmp_path):
    folder = make(tmp_path, ["a.png", "p/b.png"])
    (tmp_path / "abs.png").write_bytes(b"")
    assert folder.find("a.png").path == "a.png"
    assert folder.find(str(tmp_path / "abs.png")).path == str(tmp_path / "abs.png")
    assert folder.find("p\\b.png") == Match("p/b.png", TURNED)
    assert "_names" not in vars(folder)
    assert folder.find("b.png").path == "p/b.png"
    assert folder.find("x" * 5000).path is None


def test_long_lists_are_cut():
    assert [listed(tuple("abcde"[:count])) for count in range(1, 6)] == [
        "'a'",
        "'a' or 'b'",
        "'a', 'b' or 'c'",
        "'a', 'b', 'c' or 1 more",
        "'a', 'b', 'c' or 2 more",
    ]
