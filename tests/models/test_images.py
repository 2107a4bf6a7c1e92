"""The image models: sizes of image, options, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from ava.data.source import ImageSpec
from ava.errors import InputError
from ava.models.convnet import ConvNet
from ava.models.mlp import MLP
from ava.models.resnet import STAGES, ResNet
from ava.models.vit import ViT

DIGITS = ImageSpec(channels=1, height=8, width=8, num_classes=10)


def image(channels: int, height: int, width: int) -> ImageSpec:
    return ImageSpec(channels, height, width, num_classes=7)


@pytest.mark.parametrize("size", [(1, 4, 4), (1, 5, 9), (1, 28, 28), (3, 32, 32), (3, 30, 64)])
@pytest.mark.parametrize(
    ("model", "options"), [(MLP, {"width": 8}), (ConvNet, {"width": 2}), (ResNet, {"layers": 10, "width": 2})]
)
def test_any_size_of_image_fits(model, options, size):
    inputs = torch.randn(2, *size)
    logits = model(image(*size), **options)(inputs)
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("model", [ConvNet, ResNet])
def test_the_narrowest_network_still_sees_the_smallest_image(model):
    """Groups of one channel in a map of one pixel would normalise every image away."""
    torch.manual_seed(0)
    net = model(image(1, 4, 4), width=2)
    first, second = net(torch.randn(2, 1, 4, 4))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("model", [ConvNet, ResNet])
def test_images_under_four_pixels_are_refused(model):
    with pytest.raises(InputError, match="3x8 pixels are too small"):
        model(image(1, 3, 8))


def test_the_default_convnet_has_about_94_000_parameters():
    assert sum(p.numel() for p in ConvNet(DIGITS).parameters()) == 94_186


def test_mlp_of_depth_zero_is_linear():
    net = MLP(DIGITS, depth=0)
    a, b = torch.randn(2, 3, 1, 8, 8)
    torch.testing.assert_close(net(a + b), net(a) + net(b) - net(torch.zeros_like(a)))


@pytest.mark.parametrize("layers", STAGES)
def test_resnet_has_as_many_weighted_layers_as_it_says(layers):
    with torch.device("meta"):
        net = ResNet(DIGITS, layers=layers)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size != (1, 1)]
    assert len(convolutions) + 1 == layers


def test_resnet_18_has_the_papers_size():
    """11.7 M for ImageNet, but for the large stem's second convolution in the place of max pooling."""
    with torch.device("meta"):
        net = ResNet(ImageSpec(3, 224, 224, 1000))
    extra = 64 * 64 * 9 + 2 * 64
    assert sum(p.numel() for p in net.parameters()) == 11_689_512 + extra


@pytest.mark.parametrize(
    ("stem", "size", "expected"), [("auto", 32, 32), ("auto", 64, 16), ("small", 64, 64), ("large", 32, 8)]
)
def test_resnet_stem_follows_the_image(stem, size, expected):
    net = ResNet(image(3, size, size), layers=10, width=2, stem=stem)
    assert net.stem(torch.randn(1, 3, size, size)).shape[-1] == expected


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_resnet_norm_is_the_one_asked_for(norm):
    kinds = {type(m).__name__ for m in ResNet(DIGITS, layers=10, width=4, norm=norm).modules()}
    assert ("BatchNorm2d" in kinds, "GroupNorm" in kinds) == (norm == "batch", norm == "group")


def test_resnet_blocks_start_as_their_shortcut():
    block = ResNet(DIGITS, layers=10, width=4).blocks[0]
    x = torch.rand(1, 4, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_vit_sees_where_a_patch_is():
    torch.manual_seed(0)
    net = ViT(DIGITS, layers=1, width=16)
    torch.nn.init.normal_(net.position.weight)
    x = torch.randn(1, 1, 8, 8)
    assert not torch.allclose(net(x), net(x.roll(2, dims=-1)), atol=1e-5)


@pytest.mark.parametrize(("patch", "size"), [(2, (8, 8)), (4, (28, 32)), (16, (32, 64))])
def test_vit_has_one_token_per_patch(patch, size):
    net = ViT(image(3, *size), patch=patch, layers=1, width=16)
    assert net.position.weight.shape[0] == size[0] * size[1] // patch**2
    assert net(torch.randn(2, 3, *size)).shape == (2, 7)


def test_vit_refuses_patches_that_do_not_tile():
    with pytest.raises(
        InputError, match=r"patch 3 does not divide the images of 8x8 pixels\. Patches that fit: 1, 2, 4, 8"
    ):
        ViT(DIGITS, patch=3)


def test_vit_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(InputError, match="width 100 cannot be split into 3 heads"):
        ViT(DIGITS, width=100, heads=3)
