from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_dagm2007() -> Path:
    """Real DAGM2007 images, which lie beside the repository where they are present."""
    folder = REPOSITORY.parent / "shared" / "dagm2007"
    if not folder.is_dir():
        pytest.skip("no real DAGM2007 images beside the repository")
    return folder
