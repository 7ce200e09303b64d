"""``python -m workzone``, the command line where its script is not on the path."""

from __future__ import annotations

from workzone.cli.main import main

if __name__ == "__main__":
    main()
