"""Find the backend that computes in the number type of ``--compute``."""

from __future__ import annotations

from tinyunet_deploy.backends.table import BACKENDS, BackendChoice, Compute, find_row
from tinyunet_deploy.errors import RefusedError

__all__ = ["computing"]


def computing(backend: BackendChoice | None, compute: Compute | None) -> BackendChoice | None:
    """Return the backend that computes in a number type.

    Args:
        backend: backend that the user named; None for any.
        compute: number type that the user named; None leaves ``backend`` as it is.

    Raises:
        RefusedError: the backend has no such choice.
    """
    if compute is None:
        return backend
    choices = [row for row in BACKENDS.values() if row.compute == compute]
    name = None if backend is None else find_row(backend).name
    for row in choices:
        if name in (None, row.name, row.runtime):
            return row.name
    known = ", ".join(row.runtime for row in choices)
    raise RefusedError(str(name), f"does not compute in {compute}", f"known: {known}")
