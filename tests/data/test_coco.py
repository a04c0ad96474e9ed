"""COCO boxes: read from small files written here, pycocotools being the judge of the format where it is installed."""

import copy
import json

import pytest

from lingula.data.coco import read_coco
from lingula.data.study import Box
from lingula.registry import UserError

FILE = {
    "info": {"description": "made here"},
    "categories": [{"id": 3, "name": "nodule"}, {"id": 1, "name": "effusion", "supercategory": "pleura"}],
    "images": [
        {"id": 7, "file_name": "p1/a.png", "width": 100, "height": 80, "lesions_annotated": True},
        {"id": 0, "file_name": "b.png", "width": 100, "height": 80},
        {"id": 9, "file_name": "c.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10.5, 20, 30, 4.25], "area": 127.5, "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 3, "bbox": [None, None, None, None], "area": None},
        {"id": 5, "image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 2], "segmentation": []},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": ["1", 2, 3, 4], "iscrowd": 1},
    ],
}


@pytest.fixture
def read(tmp_path):
    def write_and_read(content, prefix=b""):
        path = tmp_path / "boxes.json"
        path.write_bytes(prefix + (content if isinstance(content, bytes) else json.dumps(content).encode()))
        return read_coco(path)

    return write_and_read


def test_boxes_by_file_name(read):
    found = read(FILE)
    assert found.categories == ("nodule", "effusion")
    assert found.boxes == {
        "p1/a.png": (Box("effusion", 10.5, 20, 40.5, 24.25), Box("nodule", 1, 2, 4, 6)),
        "b.png": (),
        "c.png": (Box("effusion", 0, 0, 1, 2),),
    }
    # of c.png somebody looked for nodules and could not draw them, so nothing is known of them there
    assert found.annotated == {
        "p1/a.png": ("nodule", "effusion"),
        "b.png": ("nodule", "effusion"),
        "c.png": ("effusion",),
    }
    assert found.images["p1/a.png"]["lesions_annotated"] is True
    assert list(found.images) == ["p1/a.png", "b.png", "c.png"]


def test_a_byte_order_mark_and_words_as_ids_are_read(read):
    words = copy.deepcopy(FILE)
    for image in words["images"]:
        image["id"] = f"i{image['id']}"
    for annotation in words["annotations"]:
        annotation["image_id"] = f"i{annotation['image_id']}"
    assert read(words, prefix=b"\xef\xbb\xbf").boxes == read(FILE).boxes


def test_categories_of_one_name_count_once(read):
    twice = copy.deepcopy(FILE)
    twice["categories"].append({"id": 12, "name": "nodule"})
    twice["annotations"].append({"id": 8, "image_id": 0, "category_id": 12, "bbox": [1, 1, 1, 1]})
    found = read(twice)
    assert found.categories == ("nodule", "effusion")
    assert found.boxes["b.png"] == (Box("nodule", 1, 1, 2, 2),)


def changed(part, position, **values):
    content = copy.deepcopy(FILE)
    content[part][position] |= values
    return content


def without(part, position, key):
    content = copy.deepcopy(FILE)
    del content[part][position][key]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("annotations", 0, image_id=8), r"boxes.json: annotation 1 has image_id 8, .* not among the 3 that"),
        (changed("annotations", 3, category_id=2), r"annotation 3 has category_id 2, .* not among the 2 that the file"),
        (changed("annotations", 3, image_id="7"), r"annotation 3 has image_id '7'"),
        (changed("annotations", 0, image_id=[7]), r"annotation 1 has image_id \[7\]; expected a whole number"),
        (changed("annotations", 0, bbox=[1, 2, 3]), r"annotation 1 has bbox \[1, 2, 3\]; expected \[x, y, width, h"),
        (changed("annotations", 0, bbox=[1, 2, None, 4]), r"annotation 1 has bbox .*; expected \[x, y, width"),
        (changed("annotations", 0, bbox=None), "annotation 1 has bbox None; expected"),
        (changed("annotations", 0, bbox=[1, 2, float("nan"), 4]), "annotation 1 has bbox .*; expected finite"),
        (without("annotations", 1, "bbox"), "annotation 2 has no 'bbox'"),
        (without("annotations", 1, "id"), "boxes.json: annotation has no 'id'"),
        (without("annotations", 1, "category_id"), "annotation 2 has no 'category_id'"),
        (without("images", 1, "file_name"), "boxes.json: image 0 has no 'file_name'"),
        (without("categories", 0, "name"), "boxes.json: category 3 has no 'name'"),
        (changed("images", 2, id=0), "boxes.json: image id 0 is there twice"),
        (changed("categories", 0, id=1), "boxes.json: category id 1 is there twice"),
        (changed("images", 2, file_name="b.png"), "boxes.json lists the image 'b.png' twice"),
        (FILE | {"images": {}}, "is not COCO JSON: expected a list of 'images'"),
        ({"images": [], "categories": []}, "is not COCO JSON: expected a list of 'annotations'"),
        ([1], "is not COCO JSON: expected a list of 'categories'"),
        (FILE | {"images": ["a.png"]}, "image has no 'id': a.png"),
        (b"{", "cannot read boxes .*boxes.json"),
        (b"\xff\xfe{", "cannot read boxes .*boxes.json"),
    ],
)
def test_errors_name_the_entry(read, content, message):
    with pytest.raises(UserError, match=message):
        read(content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file of boxes at .*none\.json"):
        read_coco(tmp_path / "none.json")


def test_the_reference_library_agrees(read, tmp_path):
    """faster-coco-eval or pycocotools, whichever is installed, reads the same rectangles."""
    reference = pytest.importorskip("pycocotools.coco")
    sound = FILE | {"annotations": [FILE["annotations"][0], FILE["annotations"][2]]}
    found = read(sound)
    coco = reference.COCO(str(tmp_path / "boxes.json"))
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    for image in coco.loadImgs(coco.getImgIds()):
        theirs = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        rectangles = [(names[box["category_id"]], *box["bbox"]) for box in theirs]
        ours = [(box.name, box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0) for box in found.boxes[image["file_name"]]]
        assert ours == rectangles
