"""dataset.toml is read strictly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinyunet_deploy.data.dataset import MaskRule
from tinyunet_deploy.data.description import Description, ImageFiles, MaskFiles, Shares
from tinyunet_deploy.data.description_file import (
    described_bits,
    description_above,
    parse_description,
    read_description,
)
from tinyunet_deploy.errors import DataError

WHOLE = """
[splits]
train = "training"
test = "check"
val_share = 0.2

[images]
folder = "{split}/photos"
ending = ".jpg"
products = ["plate", "ring"]
bit_depth = 12

[masks]
folder = "{split}/labels"
ending = "_seg.png"
missing = "good"
values = [1, 2]
inverted = true

[defects]
1 = "scratch"
2 = "dent"
"""


def test_every_key_is_read() -> None:
    assert parse_description(WHOLE, Path("d")) == Description(
        None,
        {"train": "training", "test": "check"},
        Shares(val=0.2),
        ImageFiles("{split}/photos", ".jpg", ("plate", "ring"), 12),
        MaskFiles(
            "{split}/labels", "_seg.png", "good", MaskRule(values=frozenset({1, 2}), inverted=True)
        ),
        {1: "scratch", 2: "dent"},
    )
    assert parse_description("", Path("d")) == Description()
    shares = parse_description(
        'layout = "mvtec"\n[splits]\ntest_share = 0.1\ndefects_to_train = 0.5', Path("d")
    )
    assert shares == Description("mvtec", shares=Shares(0.0, 0.1, 0.5))


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ("non_zero = true", MaskRule(non_zero=True)),
        ("threshold = 0", MaskRule(threshold=0)),
        ("values = [0]", MaskRule(values=frozenset({0}))),
        ("inverted = true", MaskRule(non_zero=True, inverted=True)),
        ("threshold = 9\ninverted = true", MaskRule(threshold=9, inverted=True)),
        ("inverted = false", None),
        ("non_zero = false", None),
    ],
)
def test_rules_of_masks(lines: str, rule: MaskRule | None) -> None:
    assert parse_description(f"[masks]\n{lines}\n", Path("d")).masks.rule == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[image]\n",
            "d:1: image is not a known key (known: layout, splits, images, masks, defects)",
        ),
        ("bit_depth = 12", "d:1: bit_depth is not a known key (write it below [images])"),
        ('folder = "a"', "d:1: folder is not a known key (write it below [images] or [masks])"),
        ("[masks]\nbit_depth = 12", "d:2: masks.bit_depth is not a known key (write it below [i"),
        ('layout = "coco"', "d:1: layout is 'coco' (known: released, development, folders,"),
        ("\n[masks]\nvalue = [1]", "d:3: masks.value is not a known key (known: masks.folder,"),
        ("[masks]\nvalues = 1", "d:2: masks.values is 1, but must be a list of whole numbers"),
        ("[masks]\nvalues = [1, 70000]", "d:2: masks.values is [1, 70000], but must list"),
        ("[masks]\nvalues = []", "d:2: masks.values is [], but must list"),
        ("[masks]\nvalues = [true]", "d:2: masks.values is [True], but must list"),
        ("[masks]\nthreshold = true", "d:2: masks.threshold is True, but must be a whole number"),
        ("[masks]\nthreshold = -1", "d:2: masks.threshold is -1, but must be 0..65534"),
        ("[masks]\nvalues = [1]\nnon_zero = true", "d:2: masks.values is given beside non_zero"),
        ("[masks]\nignore = 255", "d:2: masks.ignore is not supported: every pixel counts"),
        ("[masks]\nmissing = 1", "d:2: masks.missing is 1, but must be text"),
        ('[masks]\nmissing = "no"', "d:2: masks.missing is 'no' (known: good, error)"),
        ("[images]\nbit_depth = 17", "d:2: images.bit_depth is 17, but must be 8..16"),
        ("[images]\nbit_depth = 12.0", "d:2: images.bit_depth is 12.0, but must be a whole"),
        ('[images]\nfolder = "/etc"', "d:2: images.folder is '/etc', but must be a path below"),
        ('[images]\nfolder = "a/../.."', "d:2: images.folder is 'a/../..', but must be a path"),
        ('[images]\nending = "_a"', "d:2: images.ending needs images.folder"),
        ('[splits]\ntrain = "a"', "d:2: splits.train needs images.folder"),
        ("[splits]\nval_share = 1.0", "d:2: splits.val_share is 1.0, but must be a number from"),
        ('layout = "visa"\n[images]\nfolder = "a"', "d:3: images.folder is given beside layout"),
        ('[images]\nfolder = "a"\n[masks]\nfolder = "a"', "masks.ending is that of the images"),
        ('[images]\nfolder = "a"', "masks.ending is that of the images in the same folder"),
        ('[images]\nfolder = "{split}"\n[masks]\nfolder = "b"', "d:2: images.folder has {split},"),
        (
            '[splits]\ntest = "t"\n[images]\nfolder = "{split}"\n[masks]\nfolder = "b"',
            "d:6: masks.folder needs {split}, as there are splits",
        ),
        ('[images]\nfolder = "a"\nproducts = ["b", "b"]', "d:3: images.products has a name twice"),
        ('[images]\nfolder = "a"\nproducts = ["b/c"]', "d:3: images.products has 'b/c', which"),
        ('[defects]\nscratch = "1"', "d:2: defects.scratch is not a value of a mask, 1..65535"),
        ('[defects]\n0 = "good"', "d:2: defects.0 is not a value of a mask"),
        ('[defects]\n70000 = "a"', "d:2: defects.70000 is not a value of a mask"),
        ("[defects]\n1 = 2", "d:2: defects.1 is 2, but must be text"),
        ('[defects]\n1 = "a"\n2 = "a"', "d:3: defects.2 is 'a', but must be a name that no"),
        ("images = 3", "d:1: images is 3, but must be a table"),
        ("images", "d: is not TOML: "),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        parse_description(text, Path("d"))


def test_the_file_is_looked_for_in_a_folder_and_above(tmp_path: Path) -> None:
    assert read_description(tmp_path) is None
    (tmp_path / "dataset.toml").write_text("[images]\nbit_depth = 12\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    found = description_above(tmp_path / "a" / "b")
    assert found == (tmp_path, Description(images=ImageFiles(bit_depth=12)))
    (tmp_path / "dataset.toml").write_bytes(b"\xff")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_description(tmp_path)
    (tmp_path / "dataset.toml").unlink()
    (tmp_path / "dataset.toml").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_description(tmp_path)


def test_the_depth_of_sources_is_that_of_their_descriptions(tmp_path: Path) -> None:
    for name, depth in (("a", 12), ("b", 10), ("plain", None)):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "images/1.png").touch()
        if depth:
            (tmp_path / name / "dataset.toml").write_text(f"[images]\nbit_depth = {depth}\n")
    assert described_bits([]) is None
    assert described_bits([tmp_path / "plain"]) is None
    assert described_bits([tmp_path / "a", tmp_path / "a/images"]) == 12
    assert described_bits([tmp_path / "a/images/1.png"]) == 12
    assert described_bits([tmp_path / "a", tmp_path / "b"], 14) == 14, "the user's comes first"
    with pytest.raises(DataError, match=r"b: has images of 10 bits, but .*a of 12 bits"):
        described_bits([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(DataError, match=r"plain: has images of no depth, but .*a of 12 bits"):
        described_bits([tmp_path / "a", tmp_path / "plain"])
    assert described_bits([tmp_path / "a", tmp_path / "plain"], otherwise=12) == 12
    assert described_bits([tmp_path / "plain"], otherwise=12) == 12, "the model's comes last"


def test_the_depths_of_data_sets_below_a_source_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "day" / "lot" / "images").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("day")
    (tmp_path / "round").symlink_to(".")
    (tmp_path / "day" / "lot" / "dataset.toml").write_text("[images]\nbit_depth = 12\n")
    wanted = f"{tmp_path}/day/lot: has images of 12 bits, but {tmp_path} of "
    with pytest.raises(DataError, match=f"{wanted}no depth, by their dataset.toml .give --bits"):
        described_bits([tmp_path])
    with pytest.raises(DataError, match=f"{wanted}10 bits, by their dataset.toml or the model's"):
        described_bits([tmp_path], otherwise=10)
    assert described_bits([tmp_path], 14) == 14
    assert described_bits([tmp_path], otherwise=12) == 12
    assert described_bits([tmp_path / "day" / "lot"]) == 12
    (tmp_path / "dataset.toml").write_text("[images]\nbit_depth = 12\n")
    assert described_bits([tmp_path]) == 12
    (tmp_path / "dataset.toml").write_text("[images]\nbit_depth = 10\n")
    with pytest.raises(DataError, match=f"{wanted}10 bits, by their dataset.toml"):
        described_bits([tmp_path])
    (tmp_path / "day" / "lot" / "dataset.toml").write_text("[masks]\nnon_zero = true\n")
    assert described_bits([tmp_path]) == 10, "it states no depth of its own"
    (tmp_path / "day").rename(tmp_path / ".day")
    (tmp_path / ".day" / "lot" / "dataset.toml").write_text("[images]\nbit_depth = 12\n")
    assert described_bits([tmp_path]) == 10, "no image is looked for in a hidden folder"
