from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.acceptance.requirements import (
    DEFAULTS,
    Requirements,
    read_requirements,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "acceptance.toml"
    path.write_text(text)
    return path


def test_every_default_has_a_reason_and_is_required() -> None:
    requirements = read_requirements()
    names = [field.name for field in dataclasses.fields(Requirements)]
    assert list(requirements.by_name()) == names
    for requirement in requirements.by_name().values():
        assert requirement.required
        assert len(requirement.reason) > 20


def test_the_package_file_may_be_given_as_it_is() -> None:
    assert read_requirements(DEFAULTS) == read_requirements()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = write(
        tmp_path, '[escapes]\nmax_rate = 0.1\nreason = "a trial"\n[line]\ndeadline_ms = 150\n'
    )
    requirements, defaults = read_requirements(path), read_requirements()
    assert requirements.escapes.max_rate == 0.1
    assert requirements.escapes.confidence == defaults.escapes.confidence
    assert requirements.escapes.reason == "a trial"
    assert requirements.line.deadline_ms == 150
    assert requirements.line.max_miss_rate == defaults.line.max_miss_rate
    rest = {"escapes": defaults.escapes, "line": defaults.line}
    assert dataclasses.replace(requirements, **rest) == defaults


def test_a_changed_value_does_not_keep_the_reason_of_the_old_one(tmp_path: Path) -> None:
    path = write(tmp_path, "[escapes]\nmax_rate = 0.1\n[overkills]\nmax_rate = 0.01\n")
    requirements = read_requirements(path)
    assert requirements.escapes.reason == "no reason was given for this value"
    assert requirements.overkills.reason == read_requirements().overkills.reason


def test_a_waiver_needs_a_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\[line\] waives the requirement without a reason"):
        read_requirements(write(tmp_path, "[line]\nrequired = false\n"))
    path = write(tmp_path, '[line]\nrequired = false\nreason = "parts are inspected by hand"\n')
    line = read_requirements(path).line
    assert (line.required, line.reason) == (False, "parts are inspected by hand")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[escape]\n", r"unknown table \[escape\] \(known: unseen_images, verdicts, escapes"),
        ("[escapes]\nrate = 0.1\n", r"unknown key rate; known: reason, required, max_rate, conf"),
        ("[parity]\nmax_rate = 0.1\n", r"unknown key max_rate; known: reason, required$"),
        ("[escapes]\nmax_rate = 0\n", "max_rate in .escapes. is 0, but must be a number above 0"),
        ("[escapes]\nmax_rate = 1\n", "above 0 and below 1"),
        ("[escapes]\nmax_rate = nan\n", "max_rate in .escapes. is nan"),
        ("[escapes]\nmax_rate = true\n", "is True, but must be a number"),
        ('[escapes]\nmax_rate = "3 %"\n', "is '3 %', but must be a number"),
        ("[smallest_defect]\narea_px = 2.5\n", "is 2.5, but must be a whole number above 0"),
        ("[line]\ndeadline_ms = inf\n", "deadline_ms in .line. is inf"),
        ("[shadow]\nmax_rate = 1\n", "max_rate in .shadow. is 1, but must be a number above 0"),
        ("[plateau]\nmin_share = 1.1\n", "above 0 and at most 1"),
        ("[parity]\nrequired = 0\n", "is 0, but must be true or false"),
        ('[parity]\nreason = " "\n', "is ' ', but must be a sentence"),
        ("parity = 1\n", r"parity is 1, but must be a table \[parity\]"),
        ("[parity\n", "is not a TOML file"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_requirements(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.toml: cannot be read: No such file"):
        read_requirements(tmp_path / "nothing.toml")


def test_the_package_names_no_limit_of_disagreement_but_says_the_one_that_counts() -> None:
    assert read_requirements().shadow.max_rate is None
    assert f"# max_rate = {read_requirements().shadow.limit:g}:" in DEFAULTS.read_text()


def test_the_guide_shows_the_defaults_of_the_package() -> None:
    tables = DEFAULTS.read_text()
    tables = tables[tables.index("[unseen_images]") :]
    guide = (REPOSITORY / "docs" / "how-to" / "accept.md").read_text()
    assert f"```text\n{tables}```" in guide
