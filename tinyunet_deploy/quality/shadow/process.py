"""The challenger's process: it judges what the leader sends, when the processors are idle.

``python -m tinyunet_deploy.quality.shadow.process`` reads frames on stdin and answers on stdout. It
ends when the leader closes its end, or ends itself.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy import systems
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.contract import Image, Score, defect_mask, score_threshold
from tinyunet_deploy.data.encoding import encode_jpeg
from tinyunet_deploy.errors import TinyUNetError
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.inspection.defects import find_defects
from tinyunet_deploy.inspection.output_names import overlay_name
from tinyunet_deploy.inspection.overlays import overlay
from tinyunet_deploy.inspection.scoring import score_decoded
from tinyunet_deploy.quality.part_score import score_part
from tinyunet_deploy.quality.scored_by import ScoredBy
from tinyunet_deploy.quality.shadow.frames import read_frame, write_frame

__all__ = ["judge", "main"]

MOST_PICTURES: Final = 200
"""Largest number of disagreements that are drawn."""


def main(leader: IO[bytes], answers: IO[bytes]) -> int:
    """Load the challenger that the first frame names, and judge every part that follows."""
    first = read_frame(leader)
    if first is None:
        return 0
    start = first[0]
    try:
        model, backend, device = start["model"], start["backend"], start["device"]
        loaded = open_backend(
            None if model is None else Path(model),
            backend,
            device,
            trust_engine=start["trust_engine"],
        )
        with loaded:
            threshold, min_area = loaded.artifact.sidecar.decision()
            scored_by = ScoredBy.of(loaded).as_fields()
            ready = {"ready": scored_by, "threshold": threshold, "min_area": min_area}
            systems.run_when_idle()  # after the runtime has started its threads
            write_frame(answers, ready)
            for answer in judge(leader, loaded, start):
                write_frame(answers, answer)
    except TinyUNetError as error:
        write_frame(answers, {"error": str(error)})
        return error.exit_code
    except Exception as error:
        write_frame(answers, {"error": repr(error)})
        return 70
    return 0


def judge(
    leader: IO[bytes], challenger: Backend, start: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Judge the parts of the following frames, and yield an answer for each.

    Args:
        leader: frames with the fields name, change and verdict, the image and the leader's score.
        start: the first frame, with the leader's threshold and min_area and the folder of the
            pictures.
    """
    rule = challenger.artifact.sidecar.decision()
    leader_rule = start["leader_threshold"], start["leader_min_area"]
    pictures = 0
    while (frame := read_frame(leader)) is not None:
        part, (image, leader_score) = frame
        began = time.perf_counter()
        (scored,) = score_decoded([image], challenger, batch_size=1)
        took_ms = (time.perf_counter() - began) * 1e3
        assert scored.score is not None
        own = score_part(scored.score, *rule, name="", defective=False)
        other = score_part(leader_score, *leader_rule, name="", defective=False)
        verdict = "NG" if own.deciding_score > score_threshold(rule.threshold) else "OK"
        picture = None
        if verdict != part["verdict"] and pictures < MOST_PICTURES:
            pictures += 1
            picture = overlay_name(part["name"], part["change"])
            path = Path(start["pictures"]) / picture
            drawn = [
                _draw(image, leader_score, *leader_rule),
                _draw(image, scored.score, *rule),
            ]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, encode_jpeg(_labelled(drawn)))
        yield {
            "verdict": verdict,
            "deciding_score": own.deciding_score,
            "largest_px": own.largest_px,
            "leader_score": other.deciding_score,
            "leader_largest_px": other.largest_px,
            "took_ms": took_ms,
            "picture": picture,
        }


def _draw(image: Image, score: Score, threshold: float, min_area: int) -> NDArray[np.uint8]:
    defects = find_defects(score, threshold, min_area)
    return overlay(image, score, defect_mask(score, threshold), defects)


def _labelled(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put the leader's picture beside the challenger's, each below its name."""
    height = max(len(picture) for picture in pictures)
    columns = []
    for name, picture in zip(("leader", "challenger"), pictures, strict=True):
        framed = np.pad(picture, ((28, height - len(picture)), (0, 8), (0, 0)))
        cv2.putText(
            framed, name, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (240, 240, 240), 1, cv2.LINE_AA
        )
        columns.append(framed)
    return np.hstack(columns)[:, :-8]


if __name__ == "__main__":
    own_stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a runtime that prints must not print into the answers
    sys.exit(main(sys.stdin.buffer, own_stdout))
