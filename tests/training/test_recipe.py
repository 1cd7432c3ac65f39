import json
from pathlib import Path

import pytest

from tinyunet_deploy.errors import DataError
from training.recipe import RECIPES, AdamW, RMSProp, Staircase, read_recipe, recipe_of


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_is_kept_is_valid(path: Path):
    assert read_recipe(path.stem) == read_recipe(str(path))


def test_reference_is_what_the_reference_code_does():
    recipe = read_recipe("reference")
    assert (recipe.steps, recipe.batch, recipe.loss) == (2500, 16, "adaptive")
    assert recipe.optimizer == RMSProp(decay=0.9, momentum=0.8, epsilon=1e-10, l2=1e-5)
    assert recipe.schedule == Staircase(rate=1e-4, factor=0.8, every=500)
    assert (recipe.data.defect_free, recipe.data.crop) == (0.0, 512)
    assert recipe.augment.rotations == (0, 90, 180)
    assert (recipe.augment.flip_horizontal, recipe.augment.flip_vertical) == (0.5, 0.0)


def test_changes_replace_values_of_the_file():
    recipe = read_recipe("crops", steps=7, seed=None)
    assert recipe.steps == 7
    assert isinstance(recipe.optimizer, AdamW)
    assert recipe.digest() != read_recipe("crops").digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "unknown key stepz"),
        ("[data]\ncorp = 3", "unknown key data.corp"),
        ("steps = 'many'", "steps must be a int"),
        ("steps = 0", "steps must be at least 1"),
        ("steps = true", "steps must be a int"),
        ("[data]\ncrop = 100", "not a multiple of 16"),
        ("[data]\ndefect_free = 1.5", "outside 0..1"),
        ("[data]\nvalidation = 1.0", "leave something to train on"),
        ("[augment]\nrotations = [45]", "not of 0, 90, 180, 270"),
        ("[augment]\nrotations = []", "at least one angle"),
        ("[augment]\nwarped = 0.5", "needs scale or angle"),
        ("[augment]\nscale = 0.2", "warped is a share"),
        ("[augment]\nwarped = 0.5\nangle = 181", "outside 0..180"),
        ("teacher = 0.5\n[augment]\nmixed = 0.5", 'mixed needs teacher_of = "crops"'),
        ("teacher_of = 'crops'", "needs a share for a teacher"),
        ("teacher = 1\nteacher_of = 'crops'\n[augment]\nmixed = 1.5", "mixed is 1.5, outside 0..1"),
        ("[optimizer]\nname = 'sgd'", "optimizer.name must be one of rmsprop, adamw"),
        ("[optimizer]\nname = 'adamw'\ndecay = 0.5", "unknown key optimizer.decay"),
        ("[schedule]\nname = 'staircase'\nrate = nan", "not a number"),
        ("loss = 'focal'", "known: adaptive"),
        ("start = 'best'", "known: random, package"),
        ("patience = 2", "patience counts validations, so it needs validate_every"),
        ("variant = 'huge'", "known: tiny, slim, original"),
        ("steps = ", "not a valid recipe"),
        ("data = 3", "data must be a table"),
    ],
)
def test_a_bad_recipe_is_refused_with_the_key(tmp_path: Path, text: str, message: str):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_recipe(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_values_of_the_command_line_replace_those_of_the_data_table():
    recipe = read_recipe(
        "polish", data={"crop": 96, "defect_free": 0.5, "validation": 0.1}, batch=2
    )
    file = read_recipe("polish")
    assert (recipe.batch, recipe.data.crop, recipe.data.defect_free) == (2, 96, 0.5)
    assert recipe.data.validation == 0.1
    assert (file.data.crop, file.data.defect_margin, recipe.data.defect_margin) == (384, 64, 16)
    assert recipe.data.crop_on_defect == file.data.crop_on_defect
    assert read_recipe("polish", data={"crop": None}) == file
    robust = read_recipe("robust", data={"validation": 0.0})
    assert (robust.validate_every, robust.data.validation) == (0, 0.0)
    with pytest.raises(DataError, match=r"data\.crop is 100, not a multiple of 16"):
        read_recipe("polish", data={"crop": 100})


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_comes_back_from_the_record_of_a_run(path: Path):
    recipe = read_recipe(path.stem)
    assert recipe_of(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_an_unknown_name_lists_the_known():
    with pytest.raises(DataError, match="reference"):
        read_recipe("refrence")
