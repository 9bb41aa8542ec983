"""Logging: one event a line, with an ``action`` and the ids of the job bound once.

Never a key, a token or a payload: what is logged is named field by field.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

TRACE = 5
_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG, "trace": TRACE}


def configure(*, level: str, format: str, **bound: Any) -> None:
    """Set up logging of this process, third-party records and warnings included; ``bound`` stands on every line."""
    logging.addLevelName(TRACE, "TRACE")
    logging.captureWarnings(capture=True)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if format == "json" else structlog.stdlib.ExtraAdder(allow=[]),
    ]
    # Plain tracebacks: the richer ones show the values of variables, and a token is one.
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = structlog.processors.JSONRenderer() if format == "json" else console
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    # urllib3 writes whole URLs at debug level, an API key in a query included.
    logging.getLogger("urllib3").setLevel(max(logging.WARNING, _LEVELS[level]))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**bound)


def get_logger() -> Any:
    """The logger of the calling module."""
    return structlog.get_logger(sys._getframe(1).f_globals["__name__"])


@contextmanager
def bound(**ids: Any) -> Iterator[None]:
    """Bind the ids of one job to every line that is logged inside."""
    with structlog.contextvars.bound_contextvars(**ids):
        yield
