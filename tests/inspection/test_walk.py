from __future__ import annotations

import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.inspection.walk import common_root, walk_images


def names(sources: list[Path], output: Path | None = None) -> list[str]:
    root = common_root(sources)
    return [path.relative_to(root).as_posix() for path in walk_images(sources, output)]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_gives_its_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    wanted = ["a/2.png", "a/10.png", "a.png", "b.JPG", "c/d/e/f.tiff", "z.Bmp"]
    touch(tmp_path, *reversed(wanted), "notes.txt", "a/Thumbs.db", "c/empty/readme.md", "png")
    (tmp_path / "folder.png").mkdir()
    touch(tmp_path, "folder.png/inside.png")
    found = names([tmp_path])
    assert sorted(found) == sorted([*wanted, "folder.png/inside.png"])
    assert found == sorted(found, key=lambda name: name.split("/"))


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, ".a.png", ".trash/b.png", "c.png", "d/._e.png")
    assert names([tmp_path]) == ["c.png"]


def test_the_output_folder_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "out/masks/a.png", "other/out/b.png")
    monkeypatch.chdir(tmp_path / "other")
    for output in (tmp_path / "out", Path("../out"), Path("../other/../out")):
        assert names([tmp_path], output) == ["a.png", "other/out/b.png"]


def test_truth_folders_of_the_released_layout_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "Class1/Train/0001.PNG", "Class1/Train/Label/0001_label.PNG")
    touch(tmp_path, "Class1/Train/Label/Labels.txt", "Class1/Train/Truth/0001.PNG")
    touch(tmp_path, "shop/Label/sticker.png", "shop/Truth/poster.png")
    assert names([tmp_path]) == [
        "Class1/Train/0001.PNG",
        "shop/Label/sticker.png",
        "shop/Truth/poster.png",
    ]


def test_links_to_folders_are_not_followed_but_links_to_files_are(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png")
    (tmp_path / "again").symlink_to("real")
    (tmp_path / "real" / "round").symlink_to(tmp_path)
    (tmp_path / "real" / "b.png").symlink_to("a.png")
    assert names([tmp_path]) == ["real/a.png", "real/b.png"]


def test_what_is_named_is_always_taken(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.raw", ".c.png", ".d/e.png", "Label/Labels.txt", "Label/f.png")
    (tmp_path / "link").symlink_to(".d")
    (tmp_path / "g.png").symlink_to("b.raw")
    named = ["b.raw", ".c.png", "Label/f.png", "g.png", "missing.png"]
    sources = [tmp_path / name for name in named]
    assert names(sources) == sorted(named)
    assert names([*sources, tmp_path]) == sorted([*named, "a.png"]), "also inside a named folder"
    assert names([tmp_path, tmp_path / ".d"]) == [".d/e.png", "a.png", "g.png"]
    assert names([tmp_path, tmp_path / "link"]) == [".d/e.png", "a.png", "g.png"]


def test_each_image_is_taken_once_however_often_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/b/2.png", "c/3.png")
    a, b, c = tmp_path / "a", tmp_path / "a" / "b", tmp_path / "c"
    wanted = ["a/1.png", "a/b/2.png", "c/3.png"]
    assert names([c, a]) == wanted
    assert names([c, b, a, a, c / "3.png", b / "2.png", tmp_path / "c" / ".." / "a"]) == wanted


@given(sources=st.lists(st.sampled_from(["", "a", "a/b", "c", "a/1.png", "a/b/2.png"]), min_size=1))
def test_any_sources_give_each_image_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, sources: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "overlapping"
    if not folder.exists():
        touch(folder, "0.png", "a/1.png", "a/b/2.png", "a/b.png", "c/3.png", "a-b.png")
    found = list(walk_images([folder / source for source in sources]))
    parts = [path.parts for path in found]
    assert all(one < other for one, other in pairwise(parts))
    for source in sources:
        below = list(walk_images([folder / source]))
        assert set(below) <= set(found)


def as_output(folder: Path) -> None:
    """Give a folder the run.json of an output."""
    run = {"schema_version": 1, "input_root": "/", "model_sha256": "0"}
    (folder / "run.json").write_text(json.dumps(run))


def test_what_is_passed_over_is_counted_by_kind(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.raw", "c.txt", ".d.png", ".e/f.png", "old/masks/a.png")
    touch(tmp_path, "Class1/Label/Labels.txt", "Class1/Label/1_label.PNG", "Class1/1.PNG", "g/h.x")
    touch(tmp_path, "out/masks/a.png")
    (tmp_path / "again").symlink_to("g")
    as_output(tmp_path / "old")
    as_output(tmp_path / "out")
    suffixes = {"suffix .raw": 1, "suffix .txt": 1, "suffix .x": 1}
    kinds = {"hidden": 2, "linked-folder": 1, "label-folder": 1, "earlier-output": 1}
    wanted = Counter({**suffixes, **kinds})
    for sources in (["."], [".", "g", "Class1"], [".", "b.raw", ".e"]):
        counts = Counter[str]()
        paths = list(walk_images([tmp_path / name for name in sources], tmp_path / "out", counts))
        if len(sources) < 3 or "g" in sources:
            assert counts == wanted, "each entry once, however many sources it lies below"
        else:
            named = Counter({"suffix .raw": 1, "hidden": 1})
            assert counts == wanted - named, "what is named is not passed over"
            assert tmp_path / "b.raw" in paths and tmp_path / ".e" / "f.png" in paths
        assert tmp_path / "old" / "masks" / "a.png" not in paths


def test_masks_beside_their_images_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "10000.png", "10000_GT.png", "10301 (copy).png", "10301_GT (copy).png")
    touch(tmp_path, "a.jpg", "a_mask.PNG", "a_Label.bmp", "b/c.tif", "b/c_mask.txt", "b/c_mask.tif")
    counts = Counter[str]()
    paths = walk_images([tmp_path], passed_over=counts)
    found = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert found == ["10000.png", "10301 (copy).png", "a.jpg", "b/c.tif"]
    assert counts == {"label-file": 5, "suffix .txt": 1}
    assert names([tmp_path / "a_mask.PNG"]) == ["a_mask.PNG"], "what is named is inspected"


def test_a_name_like_that_of_a_mask_is_no_mask_without_its_image(tmp_path: Path) -> None:
    wanted = [
        "_mask.png",
        "a_mask.png",
        "b_gt.png",
        "c/b.png",
        "d_label.png",
        "e_mask.png",
        "mask.png",
    ]
    touch(tmp_path, *wanted, "d.txt", ".b.png", "a_mask_gt.png")
    (tmp_path / "e.png").mkdir()
    (tmp_path / "d.png").symlink_to("nowhere")
    found = names([tmp_path])
    assert [name for name in found if name != "d.png"] == wanted
    assert "a_mask_gt.png" not in found, "the mask of the image a_mask.png"


def test_folders_of_masks_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "Masks/a.png", "test/b.png", "ground_truth/cut/b_mask.png")
    touch(tmp_path, "alone/masks/c.png")
    counts = Counter[str]()
    paths = walk_images([tmp_path], passed_over=counts)
    found = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert found == ["alone/masks/c.png", "images/a.png", "test/b.png"]
    assert counts == {"label-folder": 2}
    assert names([tmp_path / "Masks"]) == ["a.png"], "what is named is inspected"


def test_masks_that_a_description_places_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "p/test/a.jpg", "p/test/a.png", "p/labels/b.png", "c.png")
    (tmp_path / "p" / "dataset.toml").write_text(
        '[splits]\ntest = "test"\n[images]\nfolder = "{split}"\nending = ".jpg"\n'
        '[masks]\nfolder = "{split}"\nending = ".png"\n'
    )
    counts = Counter[str]()
    paths = walk_images([tmp_path], passed_over=counts)
    found = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert found == ["c.png", "p/labels/b.png", "p/test/a.jpg"]
    assert counts == {"label-file": 1, "suffix .toml": 1}
    assert names([tmp_path / "p" / "test"]) == ["a.jpg"], "the description lies above the source"
    (tmp_path / "p" / "dataset.toml").write_text("[image]\n")
    with pytest.raises(RefusedError, match=r"dataset\.toml:1: image is not a known key"):
        names([tmp_path / "p" / "test"])


def test_suffixes_that_are_passed_over_are_counted_by_name(tmp_path: Path) -> None:
    """Parts in a format of another name have no verdict: the counts say which."""
    touch(tmp_path, "a.png", "b.gif", "c.GIF", "d.jfif", "no suffix", "e.x\x1b", "f.longest12")
    counts = Counter[str]()
    assert len(list(walk_images([tmp_path], passed_over=counts))) == 1
    assert counts == {"suffix .gif": 2, "suffix .jfif": 1, "suffix": 3}


def test_names_of_suffixes_do_not_fill_a_report(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number:03}.{number:03}" for number in range(100)))
    counts = Counter[str]()
    list(walk_images([tmp_path], passed_over=counts))
    assert (len(counts), counts.total()) == (25, 100)


def test_a_link_to_itself_is_one_entry_among_others(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "round.png").symlink_to("round.png")
    counts = Counter[str]()
    found = [path.name for path in walk_images([tmp_path], passed_over=counts)]
    assert (found, counts) == (["a.png", "round.png"], {"suffix": 1})


def test_an_earlier_output_is_never_inspected_as_parts(tmp_path: Path) -> None:
    touch(tmp_path, "old/masks/day/a.png", "old/notes/b.png", "other/run.json", "other/c.png")
    as_output(tmp_path / "old")
    for source in ("old", "old/masks", "old/masks/day", "old/masks/day/a.png"):
        with pytest.raises(RefusedError, match="is output of an earlier inspection"):
            list(walk_images([tmp_path / source]))
    assert names([tmp_path]) == ["other/c.png"], "a run.json of another program means nothing"
    assert names([tmp_path / "old" / "notes"]) == ["b.png"]


def test_a_folder_is_read_while_it_is_walked(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    walk = walk_images([tmp_path])
    next(walk)
    touch(tmp_path, "b/2.png")
    assert [path.name for path in walk] == ["1.png", "2.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(RefusedError, match="locked: cannot be listed: Permission denied"):
        list(walk_images([tmp_path]))


def test_the_common_root_is_where_the_sources_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/b/1.png", "a/c/2.png")
    a = tmp_path / "a"
    assert common_root([a]) == a
    assert common_root([a / "b" / "1.png"]) == a / "b"
    assert common_root([a / "b", a / "c"]) == a
    assert common_root([a / "b" / "1.png", a]) == a
    monkeypatch.chdir(a / "b")
    assert common_root([Path("../c"), Path()]) == a
    assert common_root([Path("../c/2.png"), Path("../b/1.png")]) == a


def test_mirrored_names_never_leave_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "here/1.png", "train/2.png")
    monkeypatch.chdir(tmp_path / "here")
    assert names([Path("../train"), Path("../here")]) == ["here/1.png", "train/2.png"]
    assert names([Path("../train"), Path("1.png")]) == ["here/1.png", "train/2.png"]
