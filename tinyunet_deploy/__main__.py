"""``python -m tinyunet_deploy``, the same as ``tinyunet``."""

from __future__ import annotations

from tinyunet_deploy.cli import main

if __name__ == "__main__":
    main()
