import json

import pytest

from tinyunet_deploy.backends.table import BACKENDS
from tinyunet_deploy.cli import run, tinyunet


def test_doctor_tries_each_backend_and_says_what_to_install(capsys: pytest.CaptureFixture[str]):
    assert run(tinyunet, ["doctor", "--format", "json"]) == 0
    found = {row["backend"]: row for row in json.loads(capsys.readouterr().out)["backends"]}
    assert list(found) == list(BACKENDS)
    assert all(found[name]["runs"] for name in ("torch", "onnxruntime", "openvino"))
    assert all(row["runs"] or row["reason"] for row in found.values())


def test_the_table_keeps_the_brackets_of_an_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "tinyunet_deploy.backends.table.why_not",
        lambda row: f"{row.name} is not installed: pip install 'tinyunet-deploy[cpu]'",
    )
    assert run(tinyunet, ["doctor"]) == 5
    assert "[cpu]" in capsys.readouterr().out


@pytest.mark.parametrize("failure", [RuntimeError("a"), SystemExit("b"), KeyError("c")])
def test_one_backend_that_fails_in_any_way_does_not_end_doctor(
    failure: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from tinyunet_deploy.backends.openvino import OpenVINOBackend

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(OpenVINOBackend, "__init__", fail)
    assert run(tinyunet, ["doctor", "--format", "json"]) == 0
    rows = {row["backend"]: row for row in json.loads(capsys.readouterr().out)["backends"]}
    assert not rows["openvino"]["runs"]
    assert repr(failure) in rows["openvino"]["reason"]
    assert rows["onnxruntime"]["runs"]
