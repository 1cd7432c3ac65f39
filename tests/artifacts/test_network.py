import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.artifacts.architectures import Architecture
from tinyunet_deploy.artifacts.network import (
    DeployableGraph,
    TinyUNet,
    UpConv,
    multiply_accumulates,
    normalize,
    parameter_count,
)


def test_tiny_is_the_reference_network():
    network = TinyUNet()
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 23
    assert parameter_count(network) == 1_850_305
    assert multiply_accumulates("tiny", 512, 512) == 18_337_497_088


def test_original_is_the_wide_network():
    assert parameter_count(TinyUNet("original")) == 29_137_793


def test_multiply_accumulates_grow_with_the_area():
    assert multiply_accumulates("tiny", 256, 512) * 2 == multiply_accumulates("tiny", 512, 512)


def test_up_convolution_pads_right_and_bottom_only():
    up = UpConv(1, 1)
    with torch.no_grad():
        up.conv.weight.copy_(torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]]))
        up.conv.bias.zero_()
        result = up(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    # Nearest x2 gives  1 1 2 2 / 1 1 2 2 / 3 3 4 4 / 3 3 4 4,  then a column and a row of zeros.
    # Output (y, x) = v[y,x] + 10 v[y,x+1] + 100 v[y+1,x] + 1000 v[y+1,x+1].
    expected = [
        [1111.0, 2121.0, 2222.0, 202.0],
        [3311.0, 4321.0, 4422.0, 402.0],
        [3333.0, 4343.0, 4444.0, 404.0],
        [33.0, 43.0, 44.0, 4.0],
    ]
    assert result[0, 0].tolist() == expected


def test_up_convolution_has_no_negative_output():
    up = UpConv(4, 3)
    assert up(torch.randn(2, 4, 5, 6)).shape == (2, 3, 10, 12)
    assert (up(torch.randn(2, 4, 5, 6)) >= 0).all()


def test_weights_are_he_uniform_and_biases_zero():
    torch.manual_seed(0)
    network = TinyUNet()
    for module in network.modules():
        if not isinstance(module, torch.nn.Conv2d):
            continue
        fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        bound = math.sqrt(6.0 / fan_in)
        largest = module.weight.abs().max().item()
        assert largest <= bound
        if module.weight.numel() > 1000:
            assert largest > 0.98 * bound
            assert module.weight.std().item() == pytest.approx(math.sqrt(2.0 / fan_in), rel=0.05)
        assert (module.bias == 0).all()


def test_skip_is_taken_before_the_pool():
    network = TinyUNet().eval()
    seen = []
    network.decoder[-1].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    first = []
    network.encoder[0].register_forward_hook(lambda _m, _i, output: first.append(output))
    with torch.inference_mode():
        network(torch.randn(1, 1, 32, 32))
    assert seen[0].shape == (1, 48, 32, 32)
    assert torch.equal(seen[0][:, 16:], first[0])  # concat[up, skip]


@given(st.integers(0, 255))
def test_normalize_maps_grey_to_minus_one_to_one(grey):
    value = normalize(torch.tensor([grey], dtype=torch.uint8)).item()
    assert value == pytest.approx(grey / 127.5 - 1.0, abs=1e-6)


def test_deployable_graph_keeps_the_contract():
    torch.manual_seed(1)
    network = TinyUNet().eval()
    image = torch.randint(0, 256, (2, 1, 32, 48), dtype=torch.uint8)
    with torch.inference_mode():
        score = DeployableGraph(network)(image)
        logit = network(image.float() / 127.5 - 1.0)
    assert score.dtype == torch.uint8 and score.shape == image.shape
    expected = torch.round(255 * torch.sigmoid(logit))
    assert (score.float() - expected).abs().max() <= 1
    assert (score.float() == expected).float().mean() > 0.999


def test_slim_has_a_sixth_of_the_work():
    assert parameter_count(TinyUNet("slim")) == 1_003_140
    assert multiply_accumulates("slim", 512, 512) == 3_011_510_272


def test_a_network_on_blocks_sees_each_block_as_channels():
    """The pixel in row r and column c of a block is channel 2 r + c, in and out."""
    network = TinyUNet("blocks", Architecture((4,), 4, 4, space_to_depth=2)).eval()
    inside = []
    network.encoder[0].register_forward_hook(lambda _m, inputs, _o: inside.append(inputs[0]))
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    with torch.inference_mode():
        logit = network(image)
    for row in range(2):
        for column in range(2):
            assert torch.equal(inside[0][0, 2 * row + column], image[0, 0, row::2, column::2])
    assert logit.shape == image.shape
    with torch.no_grad():
        network.logit.weight.zero_()
        network.logit.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
        assert network(image)[0, 0, :2, :4].tolist() == [[0, 1, 0, 1], [2, 3, 2, 3]]


@pytest.mark.parametrize("widths", [(0,), (), (8, 9000), (2,) * 10, (8, 1)])
def test_widths_that_cannot_be_are_refused(widths):
    with pytest.raises(ValueError, match="Architecture"):
        Architecture(widths, 8, 8)
