import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import ellipse_mask
from tinyunet_deploy.data.synthetic import CLASSES, dataset_writer, sample, write_dataset


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def grey(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("size", [64, 128, 512])
@pytest.mark.parametrize("class_id", CLASSES)
def test_image_label_and_truth(class_id: int, size: int) -> None:
    image, label, truth, ellipse = sample(class_id, 3, defective=True, size=size)
    assert label is not None and truth is not None and ellipse is not None
    for array in (image, label, truth):
        assert array.dtype == np.uint8 and array.shape == (size, size)
    for mask in (label, truth):
        assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(label, ellipse_mask(*ellipse, (size, size)))
    assert np.count_nonzero(label) < size * size / 2
    assert image.std() > 10


DIGESTS = {
    1: "eb3b4aed1ba1b8a8",
    2: "fdfebd7ca21f1fcb",
    3: "3f21eea8e2a5e26e",
    4: "56a03e1d649da173",
    5: "a72f44806cebb8b8",
    6: "bc128dccf1a0c4ed",
    7: "e6691fb6c8bb3f66",
    8: "da9a3eefde727692",
    9: "3120a31079e17bf5",
    10: "89abc1278f22356a",
}
"""Class -> start of the sha256 over images, labels and exact masks of two sizes."""


@pytest.mark.parametrize("class_id", CLASSES)
def test_no_byte_of_a_class_ever_changes(class_id: int) -> None:
    """Figures in the repository, golden images and trained models rest on these images."""
    checksum = hashlib.sha256()
    for size in (64, 512):
        for defective in (True, False):
            image, label, truth, _ = sample(class_id, 3, defective=defective, seed=1, size=size)
            for array in (image, label, truth):
                checksum.update(b"" if array is None else array.tobytes())
    assert checksum.hexdigest()[:16] == DIGESTS[class_id]


@pytest.mark.parametrize("class_id", CLASSES)
def test_same_arguments_same_sample(class_id: int) -> None:
    first = sample(class_id, 5, defective=True, seed=9, size=128)
    second = sample(class_id, 5, defective=True, seed=9, size=128)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("class_id", CLASSES)
def test_index_and_seed_change_image_and_defect(class_id: int) -> None:
    base = sample(class_id, 5, defective=True, size=128)
    for other in (
        sample(class_id, 6, defective=True, size=128),
        sample(class_id, 5, defective=True, seed=1, size=128),
    ):
        assert np.mean(base.image != other.image) > 0.5
        assert base.ellipse != other.ellipse


@settings(max_examples=120, deadline=None)
@given(
    class_id=st.sampled_from(CLASSES),
    index=st.integers(0, 2**40),
    seed=st.integers(0, 2**70),
)
def test_defect_lies_in_its_ellipse_and_is_the_only_difference(
    class_id: int, index: int, seed: int
) -> None:
    clean = sample(class_id, index, defective=False, seed=seed, size=64)
    image, label, truth, ellipse = sample(class_id, index, defective=True, seed=seed, size=64)
    assert clean.label is None and clean.truth is None and clean.ellipse is None
    assert label is not None and truth is not None and ellipse is not None
    assert np.mean(label[truth > 0] > 0) >= 0.98
    a, b, angle, x, y = ellipse
    near = ellipse_mask(a + 8, b + 8, angle, x, y, (64, 64)) > 0
    changed = image != clean.image
    assert changed[truth > 0].any()
    assert not changed[~near].any()


@pytest.mark.parametrize("class_id", CLASSES)
def test_defect_is_visible_but_small(class_id: int) -> None:
    for index in range(6):
        clean = sample(class_id, index, defective=False)
        image, label, truth, _ = sample(class_id, index, defective=True)
        assert label is not None and truth is not None
        step = np.abs(image.astype(int) - clean.image)
        assert step[truth > 0].mean() > 0.25 * clean.image.std()
        assert 10 < np.count_nonzero(truth) < 0.06 * truth.size
        assert np.count_nonzero(truth) < np.count_nonzero(label) < 0.2 * label.size


def test_written_layout(tmp_path: Path) -> None:
    steps: list[int] = []
    count = write_dataset(
        tmp_path, classes=[2, 9], train=8, test=5, size=64, seed=4, progress=steps.append
    )
    assert count == 26 and steps == [1] * 26
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Class2", "Class9"]
    for class_id in (2, 9):
        for split, indices, bad in (("Train", range(1, 9), 2), ("Test", range(9, 14), 1)):
            folder = tmp_path / f"Class{class_id}" / split
            text = (folder / "Label" / "Labels.txt").read_bytes().decode()
            head, *rows = text.removesuffix("\n").split("\n")
            assert head == "1"
            names = {"Label/Labels.txt"}
            defects = 0
            for index, row in zip(indices, rows, strict=True):
                number = f"{index:04d}"
                defective = row.split("\t")[1] == "1"
                label = f"{number}_label.PNG" if defective else "0\t"
                assert row == f"{number}\t{int(defective)}\t{number}.PNG\t0\t{label}"
                want = sample(class_id, index, defective=defective, seed=4, size=64)
                assert np.array_equal(grey(folder / f"{number}.PNG"), want.image)
                names.add(f"{number}.PNG")
                if defective:
                    defects += 1
                    truth = f"{number}_truth.PNG"
                    assert np.array_equal(grey(folder / "Label" / label), want.label)
                    assert np.array_equal(grey(folder / "Truth" / truth), want.truth)
                    names |= {f"Label/{label}", f"Truth/{truth}"}
            assert defects == bad
            assert set(contents(folder)) == names


def test_thread_count_does_not_change_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in (1, 5):
        monkeypatch.setattr(dataset_writer, "processor_count", lambda count=threads: count)
        write_dataset(tmp_path / str(threads), train=2, test=1, defective=0.5, size=64)
    assert contents(tmp_path / "1") == contents(tmp_path / "5")


@pytest.mark.parametrize(("defective", "rows"), [(0.0, 0), (0.5, 2), (1.0, 3)])
def test_share_of_defects_is_rounded_to_whole_images(
    tmp_path: Path, defective: float, rows: int
) -> None:
    assert write_dataset(tmp_path, classes=[5], train=3, test=0, defective=defective, size=64) == 3
    assert len(list(tmp_path.glob("Class5/Train/Label/*.PNG"))) == rows
    assert (tmp_path / "Class5/Test/Label/Labels.txt").read_bytes() == b"1\n"


def test_failed_callback_stops_the_run(tmp_path: Path) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        write_dataset(tmp_path, classes=[5], train=400, test=0, size=64, progress=fail)
    assert len(list(tmp_path.glob("Class5/Train/*.PNG"))) < 400
    assert not list(tmp_path.rglob(".*"))
    assert not list(tmp_path.rglob("Labels.txt"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"class_id": 0}, "class"),
        ({"class_id": 11}, "class"),
        ({"size": 48}, "size"),
        ({"size": 100}, "size"),
        ({"seed": -1}, "seed"),
        ({"index": -1}, "index"),
    ],
)
def test_sample_refuses(wrong: dict[str, int], says: str) -> None:
    arguments = {"class_id": 1, "index": 1, "size": 64} | wrong
    with pytest.raises(ValueError, match=says):
        sample(**arguments, defective=True)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"classes": [1, 12]}, "class"),
        ({"train": -1}, "counts"),
        ({"test": -1}, "counts"),
        ({"defective": 1.1}, "share"),
        ({"defective": -0.1}, "share"),
        ({"defective": float("nan")}, "share"),
        ({"size": 65}, "size"),
    ],
)
def test_write_refuses_before_writing(tmp_path: Path, wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        write_dataset(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_reader_finds_what_was_written(tmp_path: Path) -> None:
    write_dataset(tmp_path, classes=[3, 8], train=4, test=2, defective=0.5, size=64)
    items = read_dataset(tmp_path).items
    assert [(item.class_id, item.split) for item in items] == [
        (class_id, split)
        for class_id in (3, 8)
        for split, count in (("train", 4), ("test", 2))
        for _ in range(count)
    ]
    assert sum(item.defective for item in items) == 6
    assert all(item.mask is not None for item in items if item.defective)
