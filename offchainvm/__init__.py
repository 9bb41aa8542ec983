"""OffchainVM Worker: runs the off-chain part of NEAR smart contracts.

``celery -A offchainvm`` finds the Celery application here; importing the package alone does not import Celery.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "celery":
        from offchainvm.app import app  # noqa: PLC0415 -- late on purpose, see above

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
