from __future__ import annotations

import pytest

from tinyunet_deploy.backends import install_hint as hints
from tinyunet_deploy.backends.install_hint import install_hint


@pytest.mark.parametrize(
    ("module", "extra", "driver", "installed", "hint"),
    [
        ("torch", "train", False, "onnxruntime", "pip install 'tinyunet-deploy[train]'"),
        ("openvino", "cpu", False, "", "pip install 'tinyunet-deploy[cpu]'"),
        ("openvino", "cpu", True, "onnxruntime-gpu", "pip install openvino"),
        ("tensorrt", "gpu", True, "", "pip install 'tinyunet-deploy[gpu]'"),
        (
            "tensorrt", "gpu", True, "onnxruntime",
            "pip uninstall onnxruntime; pip install 'tinyunet-deploy[gpu]'",
        ),
        (
            "tensorrt", "gpu", False, "onnxruntime",
            "it needs an NVIDIA GPU with its driver, and this machine has none",
        ),
        ("other", None, True, "", "pip install other"),
    ],
)  # fmt: skip
def test_a_hint_fits_the_machine_and_never_mixes_cpu_and_gpu(
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    extra: str | None,
    driver: bool,
    installed: str,
    hint: str,
) -> None:
    monkeypatch.setattr(hints, "has_nvidia_driver", lambda: driver)
    monkeypatch.setattr(hints, "_installed", lambda name: name == installed)
    assert install_hint(module, extra) == hint
