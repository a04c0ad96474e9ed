"""YOLOv3's head on every kind of encoder, and its decoding as the inverse of the loss's assignment."""

import pytest
import torch

from lingula.losses.yolo import assign
from lingula.nn.image_encoders import ImageEncoder
from lingula.nn.yolo_v3 import ANCHORS, YoloV3, anchors_for, decode, three_scales

KINDS = [
    ("resnet50", 64, [(512, 8), (1024, 4), (2048, 2)]),  # strides 8, 16, 32: layer2, layer3, layer4
    ("small_resnet", 48, [(24, 12), (48, 6), (96, 3)]),  # of its two maps of stride 16 the last
    ("vit_tiny_patch16_224", 48, [(192, 6), (192, 3), (192, 2)]),
]


@pytest.mark.parametrize(("name", "size", "scales"), KINDS)
def test_every_kind_of_encoder_gives_three_scales(name, size, scales):
    torch.manual_seed(0)
    encoder = ImageEncoder(name, size).eval()
    with torch.no_grad():
        maps = encoder(torch.rand(1, 1, size, size)).maps
    found = three_scales(maps)
    assert [(one.shape[1], one.shape[2]) for one in found] == scales
    assert found[-1] is maps[-1] or name.startswith("vit")
    head = YoloV3([one.shape[1] for one in found], classes=2).eval()
    with torch.no_grad():
        predictions = head(found)
        corners, objectness, classes = decode(predictions, anchors_for(size), size)
    assert [tuple(p.shape) for p in predictions] == [(1, 3, side, side, 7) for _, side in scales]
    count = sum(3 * side * side for _, side in scales)
    assert (corners.shape, objectness.shape, classes.shape) == ((1, count, 4), (1, count), (1, count, 2))


def test_scales_that_an_encoder_lacks():
    one = torch.arange(9.0).view(1, 1, 3, 3)
    doubled, same, halved = three_scales([one])
    assert torch.equal(doubled, one.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert same is one
    assert halved.tolist() == [[[[2.0, 3.5], [6.5, 8.0]]]]  # means of what there is
    finer = torch.zeros(1, 2, 6, 6)
    assert [x.shape[-1] for x in three_scales([finer, one])] == [6, 3, 2]


def test_the_widths_are_those_of_the_protocol_for_a_resnet50_and_shrink_with_the_encoder():
    head = YoloV3([512, 1024, 2048], classes=1)
    convolutions = [[m for m in scale.modules() if isinstance(m, torch.nn.Conv2d)] for scale in head.before]
    assert [[c.out_channels for c in scale] for scale in convolutions] == [
        [128, 256, 128, 256, 128],
        [256, 512, 256, 512, 256],
        [512, 1024, 512, 1024, 512],
    ]
    assert [[c.kernel_size[0] for c in scale] for scale in convolutions] == [[1, 3, 1, 3, 1]] * 3
    assert [scale[0].in_channels for scale in convolutions] == [512 + 128, 1024 + 256, 2048]
    last = [[m for m in scale.modules() if isinstance(m, torch.nn.Conv2d)] for scale in head.after]
    assert [[(c.out_channels, c.kernel_size[0]) for c in scale] for scale in last] == [
        [(256, 3), (18, 1)],
        [(512, 3), (18, 1)],
        [(1024, 3), (18, 1)],
    ]
    small = [scale[1][0].out_channels for scale in YoloV3([24, 48, 96], classes=1).before]
    assert small == [48, 96, 192]  # 96 / 512 of 256, 512, 1024


def test_coarser_maps_reach_finer_predictions_and_not_the_other_way():
    torch.manual_seed(0)
    head = YoloV3([4, 8, 16], classes=1).eval()
    maps = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4), torch.randn(1, 16, 2, 2)]
    before = head(maps)
    for changed in range(3):
        after = head([one + (scale == changed) for scale, one in enumerate(maps)])
        assert [torch.equal(a, b) for a, b in zip(after, before, strict=True)] == [s > changed for s in range(3)]


def test_the_anchors_are_those_of_coco_for_416_pixels():
    assert anchors_for(416).tolist() == [[list(map(float, a)) for a in scale] for scale in ANCHORS]
    torch.testing.assert_close(anchors_for(208), anchors_for(416) / 2)
    areas = anchors_for(416).prod(-1).flatten()
    assert areas[:3].max() < areas[3:6].min() < areas[6:].min()  # fine to coarse


def test_decoding_inverts_the_assignment():
    generator = torch.Generator().manual_seed(0)
    size, grids = 96, ((12, 12), (6, 6), (3, 3))
    anchors = anchors_for(size).double()
    sides = 4 + 60 * torch.rand(20, 1, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat([96 * torch.rand(20, 1, 2, generator=generator, dtype=torch.float64), sides], -1)
    labels = torch.randint(0, 3, (20, 1), generator=generator)
    predictions = []
    for own, grid in zip(anchors, grids, strict=True):
        target = assign(boxes, labels, own, grid, size)
        classes = torch.nn.functional.one_hot(target.label.clamp(min=0), 3)
        objectness = torch.where(target.positive, 20.0, -20.0)[..., None]
        predictions.append(torch.cat([target.centre.logit(), target.log_size, objectness, 40.0 * classes - 20], -1))
    corners, objectness, classes = decode(predictions, anchors, size)
    assert (objectness > 0.5).sum(1).tolist() == [3] * 20  # once at each scale
    for film in range(20):
        expected = torch.cat([boxes[film, 0, :2] - boxes[film, 0, 2:] / 2, boxes[film, 0, :2] + boxes[film, 0, 2:] / 2])
        own = objectness[film] > 0.5
        torch.testing.assert_close(corners[film, own], expected.expand(3, 4))
        assert classes[film, own].argmax(-1).tolist() == [int(labels[film])] * 3


def test_an_untrained_head_does_not_overflow():
    corners, _, _ = decode([torch.full((1, 3, 1, 1, 6), 500.0).bfloat16()], anchors_for(224)[:1], 224)
    assert corners.dtype == torch.float32
    assert bool(corners.isfinite().all())
