import json
import shutil
from pathlib import Path

import click
import numpy as np
import pytest

from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.cli.options import ClassList
from tinyunet_deploy.data.encoding import write_png


def tinyunet_data(*arguments: object) -> int:
    return run(tinyunet, ["data", *map(str, arguments)])


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    options = ("--classes", "1,3", "--train", 4, "--test", 2, "--defective", 0.5, "--size", 512)
    assert tinyunet_data("synthesize", folder, *options) == 0
    return folder


def test_synthesize_writes_what_check_accepts(synthetic, capsys):
    assert tinyunet_data("check", synthetic, "--format", "json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["schema_version"], result["layout"]) == (1, "released")
    assert result["usable"] is True
    assert result["oddities"] == []
    assert [(row["class"], row["split"], row["images"]) for row in result["counts"]] == [
        (1, "train", 4),
        (1, "test", 2),
        (3, "train", 4),
        (3, "test", 2),
    ]
    assert result["counts"][0]["defective"] == 2
    assert result["counts"][0]["published_images"] == 575
    assert result["counts"][0]["published_defective"] == 79


def test_synthesize_says_what_comes_next(tmp_path, capsys):
    options = ("--classes", "2", "--train", 1, "--test", 1, "--size", 64)
    assert tinyunet_data("synthesize", tmp_path / "new", *options) == 0
    output = capsys.readouterr()
    assert output.out == (
        f"wrote 2 images to {tmp_path}/new; next: tinyunet data check {tmp_path}/new\n"
    )
    assert output.err == ""


def test_synthesize_never_writes_into_a_folder_in_use(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert tinyunet_data("synthesize", tmp_path) == 2
    assert tinyunet_data("synthesize", tmp_path / "notes.txt") == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("option", [("--defective", 1.5), ("--classes", "11"), ("--train", -1)])
def test_synthesize_refuses_what_the_generator_refuses(tmp_path, option, capsys):
    assert tinyunet_data("synthesize", tmp_path / "new", *option) == 2
    assert "Error: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_check_prints_counts_beside_the_published_ones(synthetic, capsys):
    assert tinyunet_data("check", synthetic, "--classes", "3") == 0
    output = capsys.readouterr()
    row = next(line for line in output.out.splitlines() if "train" in line)
    assert row.replace("│", " ").split() == ["3", "train", "4", "575", "2", "66", "subset"]
    assert "nothing odd" in output.out
    assert output.err == ""


def test_check_prints_oddities_and_still_succeeds(synthetic, tmp_path, capsys):
    shutil.copytree(synthetic / "Class1", tmp_path / "Class1")
    for number in range(12):
        (tmp_path / "Class1" / "Train" / f"note{number:02}.txt").touch()
    shutil.copyfile(
        tmp_path / "Class1" / "Train" / "0001.PNG", tmp_path / "Class1" / "Test" / "0005.PNG"
    )
    assert tinyunet_data("check", tmp_path) == 0
    output = capsys.readouterr().out
    assert "duplicate: " in output
    assert "in another split" in output
    assert output.count("stray-file: ") == 11
    assert "stray-file: 2 more" in output


def test_check_lists_everything_and_then_refuses_unusable_files(synthetic, tmp_path, capsys):
    shutil.copytree(synthetic / "Class1", tmp_path / "Class1")
    image = tmp_path / "Class1" / "Train" / "0001.PNG"
    image.write_bytes(image.read_bytes()[:1000])
    mask = next((tmp_path / "Class1" / "Test" / "Label").glob("*_label.PNG"))
    write_png(mask, np.full((64, 64), 255, np.uint8))
    assert tinyunet_data("check", tmp_path, "--format", "json") == 4
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert result["usable"] is False
    assert {oddity["kind"]: oddity["path"] for oddity in result["oddities"]} == {
        "unusable-image": str(image),
        "unusable-mask": str(mask),
    }
    assert output.err.startswith(f"error: {image}: ")
    assert "and 1 more files are unusable" in output.err
    assert output.err.count("\n") == 1


def test_check_refuses_a_folder_without_data(tmp_path, capsys):
    assert tinyunet_data("check", tmp_path) == 4
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {tmp_path}: contains no data set")


def test_check_of_own_images_compares_with_nothing(tmp_path, capsys):
    write_png_at(tmp_path / "images" / "a.png", 0)
    write_png_at(tmp_path / "masks" / "a.png", 0)
    assert tinyunet_data("check", tmp_path) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    assert row.replace("│", " ").split() == ["-", "-", "1", "-", "0", "-"]


def write_png_at(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True)
    write_png(path, np.full((32, 48), value, np.uint8))


def test_check_of_real_images_finds_nothing_odd(real_dagm2007, capsys):
    assert tinyunet_data("check", real_dagm2007, "--format", "json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["oddities"] == []
    assert (result["counts"][0]["images"], result["counts"][0]["defective"]) == (55, 33)


@pytest.mark.parametrize(
    ("text", "classes"),
    [("1", (1,)), ("5,1-3, 2", (1, 2, 3, 5)), ("7 - 7", (7,)), ("9-10", (9, 10))],
)
def test_class_list(text, classes):
    assert ClassList().convert(text, None, None) == classes


@pytest.mark.parametrize("text", ["", "0", "3-1", "1,,2", "one", "1-2-3", "-1", "99999"])
def test_class_list_refuses_nonsense(text):
    with pytest.raises(click.BadParameter, match="not a list of classes"):
        ClassList().convert(text, None, None)


def test_check_says_sizes_depths_and_mask_values_and_draws_a_sheet(tmp_path, capsys):
    write_png_at(tmp_path / "data" / "images" / "a.png", 0)
    write_png_at(tmp_path / "data" / "masks" / "a.png", 0)
    sheet = tmp_path / "sheet"
    assert tinyunet_data("check", tmp_path / "data", "--sheet", sheet) == 0
    output = capsys.readouterr()
    assert "sizes: 48x32 in 1\nstored bits: 8 in 1\nmask values: 0 in 1\n" in output.out
    assert output.err == f"sheet: {sheet}/contact-sheet.html\n"
    assert sorted(path.name for path in sheet.iterdir()) == [
        "contact-sheet.html",
        "contact-sheet.png",
    ]
    assert "mask values: 0 in 1" in (sheet / "contact-sheet.html").read_text()
    assert tinyunet_data("check", tmp_path / "data", "--format", "json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["sizes"] == [{"height": 32, "width": 48, "images": 1}]
    assert result["stored_bits"] == [{"bits": 8, "images": 1}]
    assert result["mask_values"] == [{"values": "0", "masks": 1}]
