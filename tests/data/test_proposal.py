"""A description is proposed, says what was seen, and reads the data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data.small_images import SPOT, grey, put
from tests.data.test_layouts import released
from tests.data.test_mask_survey import IDS
from tests.data.test_mvtec import product
from tests.data.test_visa import visa
from tinyunet_deploy.data.dataset import MaskRule
from tinyunet_deploy.data.description import Description, ImageFiles, MaskFiles, Shares
from tinyunet_deploy.data.description_file import parse_description
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.data.proposal import description_text, propose
from tinyunet_deploy.errors import DataError


def own(root: Path, masks: list[np.ndarray], *, images: str = "images", end: str = "") -> Path:
    for number, mask in enumerate(masks):
        put(root / images / f"{number}.png", grey(number))
        put(root / "masks" / f"{number}{end}.png", mask)
    return root


def test_a_set_without_splits_gets_val_and_test(tmp_path: Path) -> None:
    proposal = propose(own(tmp_path, [SPOT] * 5 + [grey(0)] * 5))
    assert proposal.description == Description("folders", shares=Shares(0.2, 0.2))
    seen = " ".join(proposal.seen)
    assert "Values of 10 of 10 masks: 0, 255 in 5; 0 in 5." in seen
    assert "Without splits: 5 defective and 5 good images." in seen
    (tmp_path / "dataset.toml").write_text(proposal.text())
    splits = Counter((item.split, item.defective) for item in read_dataset(tmp_path).items)
    assert splits == {
        ("train", True): 3, ("train", False): 3, ("val", True): 1, ("val", False): 1,
        ("test", True): 1, ("test", False): 1,
    }  # fmt: skip
    assert parse_description(proposal.text(), tmp_path) == proposal.description


def test_own_folder_names_ids_and_depth(tmp_path: Path) -> None:
    own(tmp_path, [IDS, IDS, grey(0)], images="photos", end="_seg")
    for number in range(3):
        path = tmp_path / "photos" / f"{number}.png"
        assert cv2.imwrite(str(path), np.linspace(0, 4000, 384).astype(np.uint16).reshape(24, 16))
    description = propose(tmp_path).description
    assert description.images == ImageFiles("photos", bit_depth=12)
    assert description.masks == MaskFiles("masks", "_seg", rule=MaskRule(non_zero=True))
    assert description.shares == Shares(), "two defective images can spare none"


def test_one_image_of_all_16_bits_speaks_against_a_smaller_depth(tmp_path: Path) -> None:
    own(tmp_path, [SPOT] * 2)
    for number, largest in enumerate((4000, 40000)):
        values = np.linspace(0, largest, 384).astype(np.uint16).reshape(24, 16)
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), values)
    assert propose(tmp_path).description.images.bit_depth is None


def test_no_depth_is_proposed_that_some_image_would_exceed(tmp_path: Path) -> None:
    """One hot pixel hides a camera of 12 bits no longer, but 12 bits cannot hold it."""
    own(tmp_path, [SPOT] * 2)
    values = np.full((64, 64), 4000, np.uint16)
    for number, hot in enumerate((4000, 65535)):
        values[0, 0] = hot
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), values)
    assert propose(tmp_path).description.images.bit_depth is None


def test_parts_without_a_mask_are_good_and_said_so(tmp_path: Path) -> None:
    own(tmp_path, [SPOT] * 3)
    for number in range(3, 5):
        put(tmp_path / "images" / f"{number}.png", grey(number))
    proposal = propose(tmp_path)
    assert proposal.description.masks.missing == "good"
    assert any("2 of 5 images have no mask" in line for line in proposal.seen)
    put(tmp_path / "masks" / "other.png", SPOT)
    with pytest.raises(DataError, match=r"other\.png: is a mask without an image, and 2 images"):
        propose(tmp_path)


def test_a_set_without_good_parts_is_said_so(tmp_path: Path) -> None:
    assert any("overkill cannot be" in line for line in propose(own(tmp_path, [SPOT])).seen)


def test_soft_edges_are_cut_at_half_and_said_so(tmp_path: Path) -> None:
    soft = cv2.GaussianBlur(SPOT, (0, 0), 1)
    proposal = propose(own(tmp_path, [soft, soft, grey(0)]))
    assert proposal.description.masks.rule == MaskRule(threshold=127)
    seen = " ".join(proposal.seen)
    assert "values above 127 mean defect. non_zero = true would widen each defect by its" in seen
    (tmp_path / "dataset.toml").write_text(proposal.text())
    items = read_dataset(tmp_path).items
    assert [int(read_mask(item, SPOT.shape).sum()) // 255 for item in items if item.defective] == [
        np.count_nonzero(soft > 127)
    ] * 2


def test_mvtec_trains_on_half_of_its_defects(tmp_path: Path) -> None:
    proposal = propose(product(tmp_path))
    assert proposal.description == Description("mvtec", shares=Shares(0.0, 0.0, 0.5))


def test_visa_keeps_its_rule(tmp_path: Path) -> None:
    proposal = propose(visa(tmp_path))
    assert proposal.description == Description("visa", shares=Shares(0.0, 0.0, 0.5))
    (tmp_path / "dataset.toml").write_text(proposal.text())
    assert all(item.rule == MaskRule(non_zero=True) for item in read_dataset(tmp_path).items)


def test_dagm2007_stays_as_it_is(tmp_path: Path) -> None:
    released(tmp_path / "Class1" / "Train", "0001 0002* 0003* 0004*")
    assert propose(tmp_path).description == Description("released")


def test_masks_of_two_colours_without_black_are_refused(tmp_path: Path) -> None:
    good = np.full((32, 32, 3), (0, 0, 200), np.uint8)
    bad = good.copy()
    bad[4:12, 4:12] = (0, 200, 0)
    own(tmp_path, [bad, bad, good, good])
    with pytest.raises(DataError, match=r"0\.png: has no black pixel.*0 where the part is good"):
        propose(tmp_path)
    own(tmp_path, [bad, bad, good, np.where(bad == 0, bad, 0)])  # one of them has black
    assert propose(tmp_path).description.masks.rule == MaskRule(non_zero=True)


def test_the_names_of_defect_types_are_kept(tmp_path: Path) -> None:
    types = np.zeros((32, 32), np.uint8)
    types[2:6, 2:6], types[20:24, 2:6] = 1, 2
    own(tmp_path, [types] * 3 + [grey(0)] * 3)
    described = tmp_path / "dataset.toml"
    described.write_text('[masks]\nnon_zero = true\n\n[defects]\n1 = "scratch"\n2 = "dent"\n')
    proposal = propose(tmp_path)
    assert proposal.description.defect_types == {1: "scratch", 2: "dent"}
    assert "names of defect types" in proposal.text() and '2 = "dent"' in proposal.text()
    described.write_text("[masks]\nnon_zero = 7\n")  # to be replaced
    assert propose(tmp_path).description.defect_types == {}


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.png", grey(1))
    with pytest.raises(DataError, match="no images whose masks can be found"):
        propose(tmp_path)


@pytest.mark.parametrize(
    "description",
    [
        Description(),
        Description(
            splits={"val": 'a "b"\\c'},
            shares=Shares(test=0.1),
            images=ImageFiles("{split}/ä", "_i.png", ("x", "y z")),
            masks=MaskFiles("{split}/m", "_m", "error", MaskRule(values=frozenset({2, 1}))),
        ),
        Description("pairs", masks=MaskFiles(rule=MaskRule(threshold=3, inverted=True))),
        Description("pairs", masks=MaskFiles(rule=MaskRule(non_zero=True, inverted=True))),
        Description(
            masks=MaskFiles(rule=MaskRule(non_zero=True)), defect_types={1: "scratch", 20: "dent"}
        ),
    ],
)
def test_the_text_says_the_same(description: Description) -> None:
    text = description_text(description, Path("d"))
    assert parse_description(text, Path("d")) == description
    with pytest.raises(DataError, match="cannot be written in TOML"):
        description_text(Description(splits={"val": "\udcff"}), Path("d"))
