"""Checks the total size of the weights that the repository contains; `make lint` runs this file.

It needs only the standard library, so it takes no time before each push.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tokbench.paths import CHECKOUT

LIMIT = 64 * 2**20
"""Maximum size in bytes of all weight files under adapters/ that git tracks: every clone downloads them."""

_NUM_EXAMPLES = 5
"""Number of folders that the message lists."""


def tracked_weights(checkout: Path) -> dict[Path, int] | None:
    """Return the sizes in bytes of the weight files that git tracks under adapters/; None if this is no git checkout.

    Files that are staged are included, files that were deleted are not. Their sizes are those in the working tree.
    """
    command = ["git", "ls-files", "-z", "--", "adapters/*.safetensors"]
    try:
        listed = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    paths = (checkout / name for name in listed.split("\0") if name)
    return {path: path.stat().st_size for path in paths if path.is_file()}


def excess(sizes: dict[Path, int], limit: int = LIMIT) -> str:
    """Return a message if the files are larger than `limit` in total, else an empty string."""
    total = sum(sizes.values())
    if total <= limit:
        return ""
    families: dict[str, int] = {}
    for path, size in sizes.items():
        families[path.parent.name] = families.get(path.parent.name, 0) + size
    largest = sorted(families, key=lambda name: -families[name])[:_NUM_EXAMPLES]
    listed = ", ".join(f"{name} {_mebibytes(families[name])}" for name in largest)
    return (
        f"the weights in adapters/ take {_mebibytes(total)}, but may take {_mebibytes(limit)} in all (largest folders: "
        f"{listed}); remove some with `git rm --cached`, or train smaller models"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def main(checkout: Path = CHECKOUT, limit: int = LIMIT) -> int:
    """Print the total size or what exceeds the limit; return the exit status."""
    sizes = tracked_weights(checkout)
    if sizes is None:
        print(f"{checkout} is no git checkout, so the size of its committed weights was not checked")
        return 0
    if message := excess(sizes, limit):
        print(message, file=sys.stderr)
        return 1
    print(f"{len(sizes)} weight files take {_mebibytes(sum(sizes.values()))} of {_mebibytes(limit)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
