from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np

from tinyunet_deploy.contract import Contract, Image
from tinyunet_deploy.quality.shadow.frames import write_frame
from tinyunet_deploy.quality.shadow.process import judge
from tinyunet_deploy.testing.fake_backend import FakeBackend


def spot(value: int) -> Image:
    image = np.zeros((64, 64), np.uint8)
    image[20:30, 20:30] = value
    return image


def test_every_part_is_judged_by_the_challengers_own_rule_and_flips_are_drawn(
    tmp_path: Path,
) -> None:
    challenger = FakeBackend(contract=Contract(64, 64), threshold=0.4, min_area=9)
    start = {"leader_threshold": 0.5, "leader_min_area": 4, "pictures": str(tmp_path)}
    leader = io.BytesIO()
    for name, value, verdict in (("a/1.png", 110, "OK"), ("a/2.png", 200, "NG")):
        header = {"name": name, "change": 0, "verdict": verdict}
        write_frame(leader, header, spot(value), spot(value - 5))
    leader.seek(0)
    first, second = judge(leader, challenger, start)
    # 110 is above 0.4 x 255 = 102: the challenger rejects it
    assert (first["verdict"], first["deciding_score"], first["largest_px"]) == ("NG", 110, 100)
    assert (first["leader_score"], first["leader_largest_px"]) == (105, 0)
    assert first["picture"] == "a/1.jpg"
    picture = cv2.imread(str(tmp_path / "a" / "1.jpg"))
    assert picture is not None and picture.shape[1] == 2 * 340 + 8
    assert (second["verdict"], second["picture"]) == ("NG", None)
    assert (second["leader_score"], second["leader_largest_px"]) == (195, 100)
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == ["1.jpg"]
