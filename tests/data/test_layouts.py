from collections import Counter
from pathlib import Path

import pytest

from tests.data.small_images import SHAPE, SPOT, grey, put
from tinyunet_deploy.data.dataset import Ellipse
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.layouts.released import PUBLISHED_COUNTS
from tinyunet_deploy.data.masks import ellipse_mask, read_mask
from tinyunet_deploy.errors import DataError


def released(
    folder: Path, names: str = "0001 0002*", *, suffix: str = "PNG", end: str = "\n"
) -> Path:
    """A Train or Test folder; the images marked with * are defective."""
    lines = ["1"]
    for name in names.split():
        stem, defective = name.rstrip("*"), name.endswith("*")
        put(folder / f"{stem}.{suffix}", grey(int(stem) % 256))
        label = f"{stem}_label.{suffix}" if defective else "0"
        lines.append(
            f"{stem}\t{int(defective)}\t{stem}.{suffix}\t0\t{label}" + "\t" * (not defective)
        )
        if defective:
            put(folder / "Label" / label, SPOT)
    labels_txt(folder).parent.mkdir(parents=True, exist_ok=True)
    labels_txt(folder).write_bytes((end.join(lines) + end).encode())
    return folder


def labels_txt(folder: Path) -> Path:
    return folder / "Label" / "Labels.txt"


def development(root: Path) -> Path:
    put(root / "Class1" / "1.png", grey(1))
    put(root / "Class1_def" / "1.png", grey(2))
    put(root / "Class1_def" / "2.png", grey(3))
    text = "1\t3.0\t2.0\t0.5\t8.0\t12.0\r\n2\t4\t2\t-1.5\t8\t12\t\r\n\r\n"
    (root / "Class1_def" / "labels.txt").write_bytes(text.encode())
    return root


def summary(root: Path, **choice) -> list[tuple]:
    """(class, split, image name, defective) of the items."""
    items = read_dataset(root, **choice).items
    return [(item.class_id, item.split, item.image.name, item.defective) for item in items]


def refuses(message: str, root: Path, **choice) -> DataError:
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(root, **choice)
    return caught.value


# --- the released layout ------------------------------------------------------------------------


def test_released_layout_is_sorted_by_class_split_and_name(tmp_path):
    released(tmp_path / "Class10" / "Train", "0003")
    released(tmp_path / "Class2" / "Train", "0003* 0002")
    released(tmp_path / "Class2" / "Test", "0001*")
    assert summary(tmp_path) == [
        (2, "train", "0002.PNG", False),
        (2, "train", "0003.PNG", True),
        (2, "test", "0001.PNG", True),
        (10, "train", "0003.PNG", False),
    ]
    assert read_dataset(tmp_path).layout == "released"
    assert summary(tmp_path, classes=[10, 2], split="train") == [
        (2, "train", "0002.PNG", False),
        (2, "train", "0003.PNG", True),
        (10, "train", "0003.PNG", False),
    ]


@pytest.mark.parametrize(
    ("place", "start"),
    [
        ("Class1/Train", ""),
        ("Class1/train", ""),
        ("Class1/Class1/Train", ""),
        ("DAGM_KaggleUpload/Class1/Train", ""),
        ("DAGM_KaggleUpload/Class1/Class1/Train", ""),
        ("Class1/Train", "Class1"),
        ("Class1/Class1/Train", "Class1"),
    ],
)
@pytest.mark.parametrize(("suffix", "end"), [("PNG", "\n"), ("png", "\r\n")])
def test_every_way_of_unpacking_gives_the_same_items(tmp_path, place, start, suffix, end):
    folder = released(tmp_path / place, suffix=suffix, end=end)
    (folder / "Thumbs.db").write_bytes(b"thumbs")
    (folder / "Label" / "Thumbs.db").write_bytes(b"thumbs")
    put(folder / "Truth" / "0002_truth.PNG", SPOT)
    assert summary(tmp_path / start) == [
        (1, "train", f"0001.{suffix}", False),
        (1, "train", f"0002.{suffix}", True),
    ]


def test_a_class_folder_is_a_data_set_from_within(tmp_path, monkeypatch):
    released(tmp_path / "Class7" / "Test")
    monkeypatch.chdir(tmp_path / "Class7")
    assert [row[0] for row in summary(Path())] == [7, 7]


def test_names_match_in_either_case_and_blank_last_lines_are_fine(tmp_path):
    folder = released(tmp_path / "Class1" / "Test")
    (folder / "0002.PNG").rename(folder / "0002.png")
    (folder / "Label" / "0002_label.PNG").rename(folder / "Label" / "0002_LABEL.png")
    with labels_txt(folder).open("a") as file:
        file.write("\r\n\n\t\n")
    assert summary(tmp_path) == [(1, "test", "0001.PNG", False), (1, "test", "0002.png", True)]


def test_released_masks_are_read(tmp_path):
    released(tmp_path / "Class1" / "Train")
    good, defective = read_dataset(tmp_path).items
    assert good.mask is None
    assert not read_mask(good, SHAPE).any()
    assert read_mask(good, SHAPE).shape == SHAPE
    assert (read_mask(defective, SHAPE) == SPOT).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0002\t1\t0009.PNG\t0\t0002_label.PNG", r"Labels\.txt:3: 0009\.PNG is not in"),
        ("0001\t0\t0001.PNG\t0\t0\t", r"Labels\.txt:3: 0001\.PNG is listed a second time"),
        ("0002\t1\t0002.PNG\t0\t0", r"Labels\.txt:3: 0002\.PNG is defective but has no mask"),
        ("0002\t0\t0002.PNG\t0\t0002_label.PNG", r":3: 0002\.PNG is defect-free but has the mask"),
        ("0002\t1\t0002.PNG\t0\t0009_label.PNG", r":3: .* its mask 0009_label\.PNG is not in"),
        ("0002\t2\t0002.PNG\t0\t0002_label.PNG", r":3: flag '2' is neither"),
        ("0002\t1\t0002.PNG", r":3: has 3 fields"),
        ("0002 1 0002.PNG 0 0002_label.PNG", r":3: has 1 fields"),
        ("0002\t1\t\t0\t0002_label.PNG", r":3: has 5 fields"),
        ("0002\t0\t0002.PNG\t0\t0\t", r"does not list the mask 0002_label\.PNG"),
        ("", r"does not list 0002\.PNG"),
    ],
)
def test_a_label_list_that_disagrees_is_refused_with_its_line(tmp_path, line, message):
    folder = released(tmp_path / "Class1" / "Train")
    labels_txt(folder).write_text(f"1\n0001\t0\t0001.PNG\t0\t0\t\n{line}\n")
    refuses(message, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"0001\t0\t0001.PNG\t0\t0\n", ":1: is .* where 1 is expected"), (b"\xff\xfe1", "plain text")],
)
def test_a_file_that_is_no_label_list_is_refused(tmp_path, content, message):
    folder = released(tmp_path / "Class1" / "Train")
    labels_txt(folder).write_bytes(content)
    refuses(message, tmp_path)


def test_missing_label_files_are_refused(tmp_path):
    folder = released(tmp_path / "Class1" / "Train")
    (folder / "Label" / "0002_label.PNG").unlink()
    refuses(r"Labels\.txt:3: 0002\.PNG is defective, but its mask", tmp_path)
    labels_txt(folder).unlink()
    refuses(r"Label/Labels\.txt: is missing", tmp_path)
    labels_txt(folder).parent.rmdir()
    refuses(r"Label/Labels\.txt: is missing", tmp_path)


def test_files_that_differ_only_in_case_are_refused(tmp_path):
    folder = released(tmp_path / "Class1" / "Train")
    put(folder / "0001.png", grey(9))
    if len(list(folder.glob("0001.*"))) < 2:
        pytest.skip("this file system ignores case")
    refuses("only in case", tmp_path)


def test_two_folders_of_one_class_are_refused(tmp_path):
    released(tmp_path / "Class1" / "Train")
    released(tmp_path / "Class01" / "Train")
    refuses("second folder of class 1", tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    released(tmp_path / "Class1" / "Train")
    released(tmp_path / "Class3" / "Test")
    assert "it has 1,3" in str(refuses("has no class 2,4", tmp_path, classes=[1, 4, 2]))
    refuses("Class3: has no train images", tmp_path, classes=[1, 3], split="train")
    assert summary(tmp_path, split="test") == [
        (3, "test", "0001.PNG", False),
        (3, "test", "0002.PNG", True),
    ]


def test_folders_without_images_are_refused(tmp_path):
    refuses("absent: does not exist", tmp_path / "absent")
    (tmp_path / "file").touch()
    refuses("file: is not a folder", tmp_path / "file")
    refuses("contains no data set", tmp_path)
    (tmp_path / "Class1" / "Train").mkdir(parents=True)
    refuses("no images found", tmp_path)


# --- the development layout ---------------------------------------------------------------------


def test_development_layout_has_ellipses_and_no_split(tmp_path):
    dataset = read_dataset(development(tmp_path))
    assert dataset.layout == "development"
    good, first, second = dataset.items
    assert (good.defective, good.ellipse, good.mask, good.split) == (False, None, None, None)
    assert first.ellipse == Ellipse(a=3.0, b=2.0, angle=0.5, x=8.0, y=12.0)
    assert (second.class_id, second.mask) == (1, None)
    expected = ellipse_mask(4, 2, -1.5, 8, 12, SHAPE)
    assert expected.any()
    assert (read_mask(second, SHAPE) == expected).all()
    refuses("has no test split", tmp_path, split="test")


def test_a_class_without_ellipses_is_refused_and_can_be_left_out(tmp_path):
    development(tmp_path)
    put(tmp_path / "Class2_def" / "150.png", grey(4))
    error = refuses(r"Class2_def/labels\.txt: is missing", tmp_path)
    assert "choose classes that have it: 1" in str(error)
    assert len(read_dataset(tmp_path, classes=[1]).items) == 3
    (tmp_path / "Class2_def" / "labels.txt").write_text("149\t3\t2\t0\t8\t8\n")
    refuses(r"150\.png: is defective, but labels\.txt has no ellipse", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3\t4\t2\t0\t8\t8", r"lists 3, but there is no 3\.png"),
        ("2\t4\t2\t0\t8\t8", r"labels\.txt:3: image 2 is listed a second time"),
        ("3\t4\t2\t0\t8", r"labels\.txt:3: is not an ellipse"),
        ("3\t4\t2\t0\t8\teight", r"labels\.txt:3: is not an ellipse"),
        ("3\t0\t2\t0\t8\t8", r"labels\.txt:3: .* axis <= 0"),
        ("3\t4\t2\tnan\t8\t8", r"labels\.txt:3: .* not finite"),
    ],
)
def test_a_wrong_line_of_ellipses_is_refused(tmp_path, line, message):
    folder = development(tmp_path) / "Class1_def"
    text = (folder / "labels.txt").read_text().rstrip()
    (folder / "labels.txt").write_text(f"{text}\n{line}\n")
    refuses(message, tmp_path)


def test_a_root_with_both_releases_is_the_released_one(tmp_path):
    development(tmp_path)
    released(tmp_path / "Class4" / "Train")
    assert read_dataset(tmp_path).layout == "released"
    assert [row[0] for row in summary(tmp_path)] == [4, 4]


# --- the layout of a user's own images ----------------------------------------------------------


def test_own_images_find_their_masks_at_any_depth(tmp_path):
    put(tmp_path / "images" / "top.png", grey(1))
    put(tmp_path / "images" / "line2" / "cam.1" / "part.BMP", grey(2)).rename(
        tmp_path / "images" / "line2" / "cam.1" / "part.png"
    )
    empty = put(tmp_path / "masks" / "top.png", grey(0))
    mask = put(tmp_path / "masks" / "line2" / "cam.1" / "part.PNG", SPOT // 255)
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "folders"
    assert summary(tmp_path) == [(None, None, "part.png", True), (None, None, "top.png", False)]
    assert [item.mask for item in dataset.items] == [mask, empty]
    assert (read_mask(dataset.items[0], SHAPE) == SPOT).all()


def test_own_images_may_be_split(tmp_path):
    for split, mask in (("train", SPOT), ("test", grey(0))):
        put(tmp_path / split / "images" / "a.png", grey(1))
        put(tmp_path / split / "masks" / "a.png", mask)
    assert summary(tmp_path) == [(None, "train", "a.png", True), (None, "test", "a.png", False)]
    assert summary(tmp_path, split="test") == [(None, "test", "a.png", False)]
    refuses("has no classes", tmp_path, classes=[1])
    put(tmp_path / "images" / "b.png", grey(1))
    refuses("keep one of the two", tmp_path)


def test_own_images_without_a_mask_or_split_are_refused(tmp_path):
    put(tmp_path / "images" / "line2" / "a.png", grey(1))
    assert "masks/line2/a.png" in str(refuses(r"a\.png: has no mask", tmp_path))
    refuses("has no test split", tmp_path, split="test")
    (tmp_path / "masks" / "line2").mkdir(parents=True)
    (tmp_path / "masks" / "line2" / "a.png").write_bytes(b"not an image")
    refuses(r"masks/line2/a\.png: is not a usable mask", tmp_path)
    put(tmp_path / "masks" / "line2" / "a.bmp", SPOT).rename(tmp_path / "masks" / "line2" / "a.tif")
    refuses("is a second mask", tmp_path)
    (tmp_path / "masks" / "line2" / "a.tif").unlink()
    (tmp_path / "images" / "line2" / "a.png").unlink()
    refuses("no images found", tmp_path)


# --- the real thing -----------------------------------------------------------------------------


def test_published_counts_are_those_of_the_release():
    assert sum(images for images, _ in PUBLISHED_COUNTS.values()) == 16_100
    assert sum(defective for _, defective in PUBLISHED_COUNTS.values()) == 2_100
    assert PUBLISHED_COUNTS[1, "train"] == (575, 79)
    assert PUBLISHED_COUNTS[8, "test"] == (1150, 150)


def test_real_released_images(real_dagm2007):
    dataset = read_dataset(real_dagm2007)
    assert dataset.layout == "released"
    counts = Counter((item.class_id, item.split, item.defective) for item in dataset.items)
    assert (counts[1, "train", True], counts[1, "train", False]) == (33, 22)
    assert (counts[1, "test", True], counts[1, "test", False]) == (14, 26)
    assert {item.class_id for item in dataset.items} == {1, 2, 3, 4, 5, 6}
    one_per_class = {item.class_id: item for item in dataset.items if item.defective}
    for item in one_per_class.values():
        shape = read_image(item.image).shape
        assert shape == (512, 512)
        assert read_mask(item, shape).any()


def test_real_development_images(real_dagm2007):
    root = real_dagm2007 / "development2007"
    items = read_dataset(root, classes=[1, 6]).items
    assert items[0].ellipse == Ellipse(40.69, 35.31, -1.99, 173.0, 210.24)
    assert items[1].ellipse == Ellipse(260.0, 30.0, 1.58, 404.0, 308.0)
    refuses(r"Class2_def/labels\.txt: is missing", root)
