"""Build hook: the project's URLs, and README.md as an index page shows it.

An index page has no files beside it, so pictures and links of README.md must be whole addresses.
They are those of the repository that the wheel is built from: its git remote ``origin`` on a public
host, or the environment variable ``TINYUNET_REPOSITORY``. Where neither is known, the wheel has no
URLs and README.md stays as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

_HOSTS: Final = {"github.com": "raw", "gitlab.com": "-/raw", "codeberg.org": "raw/branch"}
"""Public host -> path of a file's bytes, between the repository and the branch."""
_BRANCH: Final = "main"


class CustomMetadataHook(MetadataHookInterface):
    """Sets the fields that pyproject.toml calls dynamic, except the version."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add ``readme`` and ``urls`` to the metadata of the project."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        address = repository(Path(self.root))
        if address is not None:
            text = with_whole_addresses(text, address)
            metadata["urls"] = {
                "Repository": address,
                "Documentation": f"{address}/blob/{_BRANCH}/docs/index.md",
                "Changelog": f"{address}/blob/{_BRANCH}/CHANGELOG.md",
                "Issues": f"{address}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def repository(root: Path) -> str | None:
    """Return the address of the repository on a public host, ``https://HOST/OWNER/NAME``."""
    remote = os.environ.get("TINYUNET_REPOSITORY") or _origin(root)
    hosts = "|".join(map(re.escape, _HOSTS))
    match = re.fullmatch(
        rf"(?:https://|ssh://)?(?:[^@/]+@)?({hosts})[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?", remote
    )
    return f"https://{match[1]}/{match[2]}" if match else None


def with_whole_addresses(text: str, address: str) -> str:
    """Return Markdown whose relative pictures and links lead to files of the repository."""
    raw = f"{address}/{_HOSTS[address.split('/')[2]]}/{_BRANCH}"
    page = f"{address}/blob/{_BRANCH}"

    def whole(match: re.Match[str]) -> str:
        base = raw if match[1] else page
        return f"{match[1]}[{match[2]}]({base}/{match[3]})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)", whole, text)


def _origin(root: Path) -> str:
    """Return the address of git's remote ``origin``; empty without one, or without git."""
    if not (root / ".git").exists():  # unpacked from an sdist, maybe inside another repository
        return ""
    try:
        process = subprocess.run(
            ["git", "-C", str(root), "remote", "get-url", "origin"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return process.stdout.strip()
