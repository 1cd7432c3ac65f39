from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.training.small_runs import SMALL
from training.data_folders import DataFolders


def test_folders_come_back_from_the_record_and_from_another_place(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_data.parent)
    data = DataFolders((Path(tiny_data.name), Path(tiny_data.name)), (9,), 12)
    values = json.loads(json.dumps(data.as_dict()))
    monkeypatch.chdir(tmp_path)
    again = DataFolders.of(values)
    assert again.folders == (Path(os.path.realpath(tiny_data)),) * 2
    assert (again.classes, again.bits) == ((9,), 12)
    first, second = again.read(SMALL)
    assert first is second
    assert {example.item.class_id for example in first.defective} == {9}
    assert first.bits == 12
    assert DataFolders.of(DataFolders((tiny_data,)).as_dict()).classes is None
