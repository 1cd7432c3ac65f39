"""Takes a trained defect-segmentation network to the production line.

>>> import tinyunet_deploy as td
>>> model = td.load()  # the model in the package; td.load("engines/class1.onnx") for another
>>> images = [td.read_image(path) for path in sorted(Path("photos").glob("*.png"))]
>>> scores = model(images)  # uint8 [N, H, W]: defect probability x 255
>>> [len(defects) for defects in model.defects(scores)]  # each with bbox, area_px, max_score
[1, 0]

Everything behind these names is imported when it is first used. The import itself switches off the
usage reports of the runtimes that are imported later (:mod:`tinyunet_deploy.telemetry`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinyunet_deploy import telemetry

if TYPE_CHECKING:
    from tinyunet_deploy.api import Model, load
    from tinyunet_deploy.data.decoding import read_image
    from tinyunet_deploy.errors import TinyUNetError
    from tinyunet_deploy.inspection.defects import Defect

__all__ = ["Defect", "Model", "TinyUNetError", "__version__", "load", "read_image"]
__version__ = "0.1.0"

telemetry.switch_off()

_WHERE = {
    "Defect": "inspection.defects",
    "Model": "api",
    "TinyUNetError": "errors",
    "load": "api",
    "read_image": "data.decoding",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
