"""``python -m offchainvm.health``: the health check of a container."""

from __future__ import annotations

import sys

from offchainvm.health.files import problems_of_this_host


def main() -> int:
    """Exit code 0 when processes of this host's user live and each one's loop turns; else 1 and a line that says which does not."""
    problems = problems_of_this_host()
    if problems:
        print("; ".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
