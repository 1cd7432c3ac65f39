"""Check the answers of a server that speaks the KServe v2 protocol.

The protocol is "Predict Protocol - Version 2" of the KServe project with two extensions of Triton:
binary tensor data, and the model configuration. An answer that breaks the protocol is refused, so
that no score of another image, model or size can pass for the requested one.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final, NoReturn

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Sidecar, parse_sidecar
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.errors import RefusedError

__all__ = [
    "MAX_JSON_BYTES",
    "SIDECAR",
    "Protocol",
]

SIDECAR: Final = "sidecar"
"""Parameter of a model's configuration that contains the text of its sidecar."""
MAX_JSON_BYTES: Final = 64 << 20
"""Largest JSON that is read from a server: a sidecar has at most 16 MiB, and quotes are escaped."""


class Protocol:
    """Checks of one model's answers; every method raises RefusedError for a broken one.

    Args:
        url: address of the model, for errors.
        model: name of the model on the server.
    """

    def __init__(self, url: str, model: str) -> None:
        self._url = url
        self._model = model

    def json(self, data: bytes) -> dict[str, Any]:
        """Return the JSON object of an answer."""
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError) as error:
            self.broken(f"is not JSON: {type(error).__name__}")
        if not isinstance(fields, dict):
            self.broken(f"is a JSON {type(fields).__name__} instead of an object")
        return fields

    def server(self, metadata: dict[str, Any]) -> dict[str, str]:
        """Return name -> version of the server, from its metadata."""
        name, version = metadata.get("name"), metadata.get("version")
        if not isinstance(name, str) or not isinstance(version, str):
            self.broken("does not name the server and its version")
        return {name: version}

    def served(self, config: dict[str, Any]) -> Sidecar:
        """Return the sidecar in a model's configuration, with the server's largest batch.

        Raises:
            ArtifactError: the sidecar was edited or is damaged.
            RefusedError: there is none, or the configuration contradicts it.
        """
        if config.get("name") != self._model:
            self.broken(f"configures the model {config.get('name')!r}, not {self._model!r}")
        parameters = config.get("parameters", {})
        parameter = parameters.get(SIDECAR) if isinstance(parameters, dict) else None
        text = parameter.get("string_value") if isinstance(parameter, dict) else None
        if not isinstance(text, str):
            raise RefusedError(
                self._url,
                "has no sidecar, so nothing is known about it",
                "add the model with: tinyunet triton MODEL -o REPOSITORY",
            )
        sidecar = parse_sidecar(text, self._url)
        most = config.get("max_batch_size")
        dims = [1, sidecar.contract.height, sidecar.contract.width]
        if sidecar.is_batch_fixed and not most:  # 0, which JSON leaves out: no axis of the batch
            most, dims = 1, [1, *dims]
        if type(most) is not int or not 1 <= most < 1 << 31:  # an int32 in ModelConfig
            self.broken(f"has max_batch_size {most!r} instead of a positive number")
        for kind, name in (("input", INPUT_NAME), ("output", OUTPUT_NAME)):
            tensors = config.get(kind)
            tensor = tensors[0] if isinstance(tensors, list) and len(tensors) == 1 else None
            if not isinstance(tensor, dict):
                self.broken(f"does not have exactly one {kind}")
            wanted = (name, "TYPE_UINT8", dims)
            given = (tensor.get("name"), tensor.get("data_type"), _integers(tensor.get("dims")))
            if given != wanted:
                self.broken(f"has the {kind} {given} instead of {wanted}")
        contract = dataclasses.replace(sidecar.contract, max_batch=most)
        return dataclasses.replace(sidecar, contract=contract)

    def check_output(self, answer: dict[str, Any], image: Batch) -> int:
        """Check the description of the one output that an inference must give.

        Args:
            answer: ``model_name`` and ``outputs``, each with ``name``, ``datatype``, ``shape``.
            image: uint8 [N, 1, H, W], which was sent.

        Returns:
            Bytes of the score.
        """
        if answer.get("model_name", self._model) != self._model:
            self.broken(f"comes from the model {answer['model_name']!r}, not {self._model!r}")
        outputs = answer.get("outputs")
        output = outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else None
        if not isinstance(output, dict):
            self.broken("does not have exactly one output")
        given = (output.get("name"), output.get("datatype"), _integers(output.get("shape")))
        wanted = (OUTPUT_NAME, "UINT8", list(image.shape))
        if given != wanted:
            self.broken(f"gives {given} instead of {wanted}")
        return image.nbytes

    def score(self, answer: dict[str, Any], data: bytes, image: Batch) -> Batch:
        """Return the score of an inference whose output came as bytes behind the JSON.

        Args:
            answer: as for :meth:`check_output`.
            data: the bytes after the JSON.
            image: uint8 [N, 1, H, W], which was sent.

        Returns:
            uint8 [N, 1, H, W].
        """
        wanted = self.check_output(answer, image)
        parameters = answer["outputs"][0].get("parameters")
        said = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if (said, len(data)) != (wanted, wanted):
            self.broken(
                f"has {len(data)} bytes of score and announces {said!r} instead of {wanted}"
            )
        return np.frombuffer(data, np.uint8).reshape(image.shape)

    def broken(self, how: str) -> NoReturn:
        """Refuse an answer that breaks the protocol.

        Args:
            how: the rest of a sentence that begins "the server's answer".
        """
        raise RefusedError(
            self._url,
            f"the server's answer {how}"[:500],
            "check that it is a KServe v2 server with this model",
        )


def _integers(values: object) -> object:
    """Return dimensions as integers; gRPC's JSON writes 64-bit numbers as text."""
    if not isinstance(values, list):
        return values
    return [int(v) if isinstance(v, str) and v.isascii() and v.isdigit() else v for v in values]
