"""Tiled scores are those of the whole image: held against the network run at full size."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.architectures import NETWORKS, Architecture
from tinyunet_deploy.artifacts.network import DeployableGraph, TinyUNet
from tinyunet_deploy.contract import Batch, Contract, Image, Score
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.decoding import MAX_PIXELS
from tinyunet_deploy.data.encoding import encode_png, write_png
from tinyunet_deploy.data.tiles import (
    Mosaic,
    Tiling,
    fit_of,
    mirrored_window,
    score_in_tiles,
    spans,
)
from tinyunet_deploy.inspection import scoring
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.run_report import read_report
from tinyunet_deploy.inspection.scoring import score_images
from tinyunet_deploy.testing.fake_backend import FakeBackend

MULTIPLE, REACH = NETWORKS["tiny"].size_multiple, NETWORKS["tiny"].reach


BLOCKS = Architecture((4, 4, 8), 4, 4, space_to_depth=2)
"""Three pools below blocks of 2x2 pixels."""


def thin_network() -> TinyUNet:
    """TinyUNet with few channels, the same in reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "thin", Architecture((4, 4, 4, 8), 8, 4))
        return TinyUNet("thin")


@pytest.fixture(scope="module")
def thin() -> Callable[[Batch], Batch]:
    """The thin network, its scores anywhere in 0..255."""
    network = thin_network()
    network.reset_parameters(torch.Generator().manual_seed(5))
    with torch.no_grad():
        spread = network(torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)))
        network.logit.weight *= 2.0 / spread.std()
        assert network.logit.bias is not None
        network.logit.bias -= 2.0 * spread.mean() / spread.std()
    graph = DeployableGraph(network).eval()

    @torch.inference_mode()
    def score(image: Batch) -> Batch:
        scored: Batch = graph(torch.from_numpy(image)).numpy()
        return scored

    return score


def part(height: int, width: int) -> Image:
    """A part of synthetic textures, each 512x512 of it another class."""
    rows = [
        np.hstack(
            [
                synthetic.sample((y + x) % 10 + 1, y, defective=True).image
                for x in range(-(-width // 512))
            ]
        )
        for y in range(-(-height // 512))
    ]
    return np.ascontiguousarray(np.vstack(rows)[:height, :width])


def tiled(image: Image, score: Callable[[Batch], Batch], contract: Contract) -> NDArray[np.uint8]:
    def score_tile(tile: Image) -> Score:
        return score(np.ascontiguousarray(tile)[None, None])[0, 0]

    return score_in_tiles(image, score_tile, Tiling(contract, MULTIPLE, REACH))


def steps(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(np.int16) - other).max())


@pytest.mark.parametrize(
    ("network", "reach"),
    [
        (thin_network(), REACH),
        (TinyUNet("slim"), NETWORKS["slim"].reach),
        (TinyUNet("blocks", BLOCKS), BLOCKS.reach),
    ],
    ids=["thin", "slim", "blocks"],
)
def test_the_reach_is_that_of_the_network(network: TinyUNet, reach: tuple[int, int]) -> None:
    """Seen by gradients: which inputs move an output, over all places in the grid of pools."""
    with torch.no_grad():  # nothing cancels and no ReLU is dead; the mean sees what the max would
        for parameter in network.parameters():
            parameter.fill_(0.1)
    network.pool = torch.nn.AvgPool2d(2)
    before = after = 0
    for place in range(16):
        image = torch.rand(1, 1, 16, 512, requires_grad=True)
        network(image)[0, 0, 8, 240 + place].backward()
        assert image.grad is not None
        (moved,) = image.grad[0, 0].abs().sum(0).nonzero(as_tuple=True)
        before = max(before, 240 + place - int(moved.min()))
        after = max(after, int(moved.max()) - 240 - place)
    assert network.facts.reach == (before, after) == reach
    assert network.facts.size_multiple == 16


@given(st.integers(0, 60), st.sampled_from([16, 64, 256, 320, 512, 1024]))
def test_tiles_cover_every_pixel_once_in_the_sum(more: int, tile: int) -> None:
    length = tile + 16 * more
    total = np.zeros(length)
    found = spans(length, tile, MULTIPLE, REACH)
    for span in found:
        assert span.start % 16 == 0
        assert 0 <= span.start <= span.first < span.last <= span.start + tile <= length
        assert (span.weights >= 0).all()
        total[span.first : span.last] += span.weights
    assert np.allclose(total, 1)
    assert (found[0].start, found[-1].start) == (0, length - tile)
    before, after = REACH
    for span in found if tile >= 320 else ():
        assert span.start == 0 or span.first - before >= span.start
        assert span.start + tile == length or span.last + after <= span.start + tile


@pytest.mark.parametrize("reach", [None, (0, 0), (5, 9)])
@pytest.mark.parametrize("multiple", [1, 8, 32])
def test_tiles_follow_the_facts_of_the_network(
    multiple: int, reach: tuple[int, int] | None
) -> None:
    """Also of one whose facts are unknown: every pixel has its score, and no tile is cut."""
    for length in range(64, 64 + 12 * multiple, multiple):
        total = np.zeros(length)
        for span in spans(length, 64, multiple, reach):
            assert span.start % multiple == 0 and span.start + 64 <= length
            total[span.first : span.last] += span.weights
        assert np.allclose(total, 1)


@pytest.mark.parametrize(
    ("contract", "multiple", "expected"),
    [
        (Contract(512, 512), 16, 16),
        (Contract(512, 512), None, 32),
        (Contract(48, 40), None, 8),
        (Contract(35, 21), None, 1),
    ],
)
def test_tiles_start_on_the_grid_of_the_network_or_a_usual_one(
    contract: Contract, multiple: int | None, expected: int
) -> None:
    tiling = Tiling(contract, multiple)
    assert tiling.grid == expected
    image = np.random.default_rng(1).integers(0, 256, (101, 95), dtype=np.uint8)
    if contract.height < 101:
        mosaic = Mosaic(image, tiling)
        tiles = list(mosaic.tiles())
        for tile in tiles:
            assert not mosaic.complete
            mosaic.add(tile)
        assert mosaic.complete and np.array_equal(mosaic.score, image)
        assert tiling.tile_count(image.shape) == len(tiles)


@given(st.data(), st.integers(1, 40), st.integers(1, 40))
def test_a_window_is_cut_out_of_the_mirrored_image(
    data: st.DataObject, rows: int, columns: int
) -> None:
    """However far beyond the edge, as numpy pads the whole image."""
    image = np.random.default_rng(0).integers(0, 256, (rows, columns), dtype=np.uint8)
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    height, width = data.draw(st.integers(1, 100)), data.draw(st.integers(1, 100))
    padded = np.pad(image, [(0, height), (0, width)], "reflect")
    expected = padded[top : top + height, left : left + width]
    assert np.array_equal(mirrored_window(image, top, left, height, width), expected)


def test_a_window_inside_the_image_is_not_copied() -> None:
    image = np.zeros((40, 50), np.uint8)
    assert np.shares_memory(mirrored_window(image, 8, 2, 32, 48), image)
    assert not np.shares_memory(mirrored_window(image, 9, 2, 32, 48), image)


def test_the_tile_of_the_largest_value_is_found_and_cut() -> None:
    tiling = Tiling(Contract(64, 64), 1, (0, 0))
    values = np.zeros((150, 170), np.uint8)
    assert tiling.tile_of_largest(values) == 0
    values[149, 5] = 9
    number = tiling.tile_of_largest(values)
    assert number == 6, "the first of three in the last of three rows"
    assert tiling.tile(values, number).max() == 9
    assert tiling.tile(values, number).shape == (64, 64)


def test_a_tiled_image_scores_as_the_whole_one(thin: Callable[[Batch], Batch]) -> None:
    image = part(1024, 1536)
    whole = thin(image[None, None])[0, 0]
    assert whole.std() > 20, "a test worth its name"
    assert steps(tiled(image, thin, Contract()), whole) <= 1


def test_a_side_that_is_no_multiple_of_16_is_mirrored_on(thin: Callable[[Batch], Batch]) -> None:
    image = part(530, 1000)
    mirrored = np.pad(image, [(0, 14), (0, 8)], "reflect")
    score = tiled(image, thin, Contract())
    assert score.shape == image.shape
    assert steps(score, thin(mirrored[None, None])[0, 0, :530, :1000]) <= 1


@pytest.mark.parametrize("shape", [(200, 200), (16, 512), (512, 20), (100, 700)])
def test_a_small_image_is_mirrored_on_to_a_tile(
    thin: Callable[[Batch], Batch], shape: tuple[int, int]
) -> None:
    image = part(*shape)
    height, width = (max(512, -(-side // 16) * 16) for side in shape)
    mirrored = np.pad(image, [(0, height - shape[0]), (0, width - shape[1])], "reflect")
    score = tiled(image, thin, Contract())
    assert score.shape == shape
    assert steps(score, thin(mirrored[None, None])[0, 0, : shape[0], : shape[1]]) <= 1


@pytest.mark.parametrize(
    ("shape", "fit"),
    [
        ((512, 384), "whole"), ((511, 384), "padded"), ((512, 383), "padded"), ((1, 1), "padded"),
        ((513, 384), "tiled"), ((512, 385), "tiled"), ((513, 10), "tiled"), ((384, 512), "tiled"),
    ],
)  # fmt: skip
def test_an_image_is_whole_padded_or_tiled(shape: tuple[int, int], fit: str) -> None:
    assert fit_of(shape, Contract(512, 384)) == fit


def test_tiles_that_are_too_small_to_be_right_fade_into_each_other(
    thin: Callable[[Batch], Batch],
) -> None:
    image = part(256, 320)
    whole = thin(image[None, None])[0, 0].astype(float)
    score = tiled(image, thin, Contract(128, 128)).astype(float)
    assert np.abs(score - whole).mean() < whole.std() / 2
    inside, seams = np.abs(np.diff(whole, axis=1)), np.abs(np.diff(score, axis=1))
    assert seams.max(axis=0).max() <= inside.max() * 1.5, "no step where two tiles meet"


def write_mixed(folder: Path) -> list[Path]:
    """Images of several sizes between broken ones; each knows its place."""
    sizes = [
        (64, 64), (100, 64), (200, 300), None, (64, 64), (64, 64), (32, 64), (64, 200), (16, 17),
        (20, 150), None, (64, 64), (15, 64),
    ]  # fmt: skip
    for index, size in enumerate(sizes):
        path = folder / f"{index}.png"
        if size is None:
            path.write_bytes(encode_png(np.zeros((64, 64), np.uint8))[:-9])
        else:
            write_png(path, np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8))
    return sorted(folder.iterdir(), key=lambda path: int(path.stem))


@settings(max_examples=12)
@given(batch_size=st.integers(1, 9), workers=st.integers(1, 3))
def test_batches_span_images_of_any_size(
    batch_size: int, workers: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    paths = write_mixed(tmp_path_factory.mktemp("mixed"))
    backend = FakeBackend(contract=Contract(64, 64))
    results = list(score_images(paths, backend, batch_size=batch_size, workers=workers, tile=True))
    assert [result.path for result in results] == paths
    reasons = [result.error and result.error.reason for result in results]
    assert [r for r in reasons if r] == ["truncated", "truncated", "wrong-size"]
    for result in results:
        if result.score is not None:
            assert np.array_equal(result.score, result.image)  # the fake gives the image back
    assert set(backend.batches[:-1]) <= {batch_size}, "full, but the last"


def test_a_folder_of_nothing_but_errors_is_told_as_it_is_read(tmp_path: Path) -> None:
    broken = tmp_path / "a.png"
    broken.write_bytes(b"")
    taken = 0

    def many():
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield broken

    backend = FakeBackend(contract=Contract(64, 64))
    results = score_images(many(), backend, batch_size=1, workers=1, tile=True)
    for done in range(1, 100):
        next(results)
        assert taken - done <= 64
    results.close()


def test_infer_takes_large_images_unless_told_not_to(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    image = np.zeros((150, 170), np.uint8)
    image[120:140, 100:165] = 200
    write_png(source / "large.png", image)
    backend = FakeBackend(contract=Contract(64, 64))
    options = {"threshold": 0.5, "min_area": 1, "batch_size": 4, "workers": 2}
    refused = infer([source], tmp_path / "whole", backend, tile=False, **options)
    assert refused.reasons == {"wrong-size": 1}
    assert infer([source], tmp_path / "tiled", backend, **options).ng == 1
    row = (tmp_path / "tiled" / "defects.csv").read_text().splitlines()[1]
    assert row == "large.png,1,100,120,65,20,1300,,200,200.0"


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.backends import open_backend
from tinyunet_deploy.testing.fake_backend import FakeBackend
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.outputs import Outputs

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

source, output = map(Path, sys.argv[2:4])
fake = sys.argv[1] == "fake"  # gives the image back: bright pixels are defects
with FakeBackend() if fake else open_backend(DEFAULT_ONNX, sys.argv[1]) as backend:
    contract = backend.contract
    for _ in range(3):  # ONNX Runtime takes its own memory with the second batch only
        backend.run(np.zeros((4, 1, contract.height, contract.width), np.uint8))
    before = peak()
    infer([source], output, backend, threshold=0.95, min_area=1, batch_size=4, workers=2,
          tile=True, outputs=Outputs(*[sys.argv[4] == "all"] * 3), max_pixels=int(sys.argv[5]))
print(peak() - before)
"""


def memory_mib(
    backend: str, source: Path, output: Path, outputs: str = "all", max_pixels: int = MAX_PIXELS
) -> float:
    """How much more memory inferring a folder takes than batches alone, MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, backend, str(source), str(output), outputs, str(max_pixels)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def test_memory_is_bounded_however_many_large_images_there_are(tmp_path: Path) -> None:
    """Two of 4096x4096, from a backend that costs nothing, with everything written."""
    source = tmp_path / "in"
    source.mkdir()
    large = np.tile(part(512, 512), (8, 8))
    for index in range(2):
        write_png(source / f"{index}.png", large)
    assert memory_mib("fake", source, tmp_path / "out") < 400


LINE_SCAN = 33000, 2048


@pytest.fixture
def line_scan(tmp_path: Path) -> Path:
    """A folder with a line scan, with defects in its first and in its last lines."""
    image = np.tile(part(512, 512) // 3, (65, 4))[: LINE_SCAN[0]]
    image[30:50, 20:60] = image[-90:-60, -70:-30] = 255
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / "scan.png", image)
    return tmp_path / "in"


def test_a_line_scan_over_64_megapixels_is_judged_in_memory_for_its_pixels(
    line_scan: Path, tmp_path: Path
) -> None:
    """At most 15 bytes a pixel: the file, the image, its score and mask, and two of labels."""
    pixels = LINE_SCAN[0] * LINE_SCAN[1]
    assert pixels > MAX_PIXELS
    mib = memory_mib("fake", line_scan, tmp_path / "out", "none", pixels)
    assert mib < 15 * pixels / 2**20
    lines, summary = read_report(tmp_path / "out" / "report.jsonl")
    assert (summary.inspected, summary.tiled) == (1, 1)
    places = [defect["bbox"] for defect in next(iter(lines))["defects"]]
    assert places == [[2048 - 70, 33000 - 90, 40, 30], [20, 30, 40, 20]]


def test_without_a_larger_limit_it_is_skipped_and_the_option_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "a.png", part(64, 65))
    monkeypatch.setattr(scoring, "MAX_PIXELS", 64 * 64)
    backend = FakeBackend(contract=Contract(64, 64))
    (scored,) = score_images([tmp_path / "a.png"], backend, batch_size=1, workers=1)
    assert scored.error is not None and scored.error.reason == "too-large"
    assert str(scored.error).endswith(
        "has 65x64 pixels, more than 4096 in all (--max-pixels allows more)"
    )


@pytest.mark.parametrize("shape", [(5003, 200), (203, 5001), (90, 5000)])
def test_beside_image_and_score_a_mosaic_needs_one_row_of_tiles(shape: tuple[int, int]) -> None:
    """Whether the image has to be extended or not."""
    image = np.zeros(shape, np.uint8)
    tiling = Tiling(Contract(96, 96), 16, (8, 8))
    spans(5008, 96, 16, (8, 8))
    tracemalloc.start()
    score = score_in_tiles(image, np.copy, tiling)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    row = 96 * (shape[1] + 96) * 4
    assert peak < score.nbytes + 4 * row + 300_000


@pytest.mark.nightly
def test_4096_pixels_a_side_take_less_than_400_mb_and_score_as_the_whole(
    tmp_path: Path, thin: Callable[[Batch], Batch]
) -> None:
    """Minutes on two cores, nearly all of them in the model of the package."""
    image = part(4096, 4096)
    source = tmp_path / "in"
    source.mkdir()
    write_png(source / "a.png", image)
    for backend in ("onnxruntime", "openvino"):
        assert memory_mib(backend, source, tmp_path / backend) < 400
    assert steps(tiled(image, thin, Contract()), thin(image[None, None])[0, 0]) <= 2


@pytest.mark.nightly
def test_the_model_of_the_package_scores_tiles_as_the_whole() -> None:
    """Through ONNX Runtime, against PyTorch at full size; a minute on two cores."""
    from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
    from tinyunet_deploy.artifacts.sidecar import DEFAULT_CHECKPOINT
    from tinyunet_deploy.backends.registry import open_backend

    image = part(1024, 1536)
    network, _ = load_checkpoint(DEFAULT_CHECKPOINT)
    with torch.inference_mode():
        whole = DeployableGraph(network)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    with open_backend() as backend:
        score = tiled(image, lambda batch: backend.run(batch).score, Contract())
    assert whole.max() > 128
    assert steps(score, whole) <= 2
