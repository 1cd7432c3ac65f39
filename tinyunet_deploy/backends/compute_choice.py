"""Find the backend that computes in the number type of ``--compute``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyunet_deploy.backends.device_name import device_type
from tinyunet_deploy.backends.table import BACKENDS, BackendChoice, BackendRow, Compute, find_row
from tinyunet_deploy.errors import RefusedError

if TYPE_CHECKING:
    from tinyunet_deploy.artifacts.sidecar import Kind

__all__ = ["computing"]


def computing(
    backend: BackendChoice | None,
    compute: Compute | None,
    kind: Kind | None = None,
    device: str | None = None,
) -> BackendChoice | None:
    """Return the backend that computes in a number type.

    Args:
        backend: backend that the user named; None for any.
        compute: number type that the user named; None leaves ``backend`` as it is.
        kind: kind of the artifact; a backend that runs it is preferred.
        device: device that the user named; among those, a backend that runs there is preferred.

    Raises:
        RefusedError: the backend has no such choice.
        RuntimeUnavailable: ``device`` is not the name of a device.
    """
    if compute is None:
        return backend
    choices = [row for row in BACKENDS.values() if row.compute == compute]
    name = None if backend is None else find_row(backend).name
    named = [row for row in choices if name in (None, row.name, row.runtime)]
    if not named:
        known = ", ".join(row.runtime for row in choices)
        raise RefusedError(str(name), f"does not compute in {compute}", f"known: {known}")

    def fits(row: BackendRow) -> tuple[bool, bool]:
        runs_kind = kind is None or kind in row.kinds
        return runs_kind, device is None or device_type(device) in row.devices

    return max(named, key=fits).name  # where none fits, open_backend says why
