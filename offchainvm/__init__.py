"""OffchainVM Worker: runs the off-chain part of NEAR smart contracts.

``celery -A offchainvm`` finds the Celery application here; importing the package alone does not import Celery.
"""

import sys
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "celery":
        return _application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _application() -> Any:
    """The one that the program ``celery`` asks for; wrong settings end it, since it would show them under a traceback."""
    from offchainvm.errors import SettingsError  # noqa: PLC0415 -- late on purpose, see above

    try:
        from offchainvm.app import app  # noqa: PLC0415 -- late on purpose, see above
    except SettingsError as error:
        print(f"offchainvm: Celery cannot start.\n{error}", file=sys.stderr)
        raise SystemExit(2) from None
    return app
