from pathlib import Path

import pytest

from tinyunet_deploy.errors import DataError
from training.recipe import RECIPES, AdamW, RMSProp, Staircase, read_recipe


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
        ("[optimizer]\nname = 'sgd'", "optimizer.name must be one of rmsprop, adamw"),
        ("[optimizer]\nname = 'adamw'\ndecay = 0.5", "unknown key optimizer.decay"),
        ("[schedule]\nname = 'staircase'\nrate = nan", "not a number"),
        ("loss = 'focal'", "known: adaptive"),
        ("variant = 'huge'", "known: tiny, original"),
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


def test_an_unknown_name_lists_the_known():
    with pytest.raises(DataError, match="reference"):
        read_recipe("refrence")
