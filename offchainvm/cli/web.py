"""``offchainvm web``: the status page, for a browser. Runs until a signal stops it."""

from __future__ import annotations

import importlib.util
from typing import Any

import typer

from offchainvm import health, logs, notify
from offchainvm.errors import OffchainVMError
from offchainvm.fleet import Heartbeat, Member, Registry
from offchainvm.health.server import serve
from offchainvm.jobs.connection import connect
from offchainvm.processes import StopSignal
from offchainvm.settings import Role, Settings, load

_HOST = typer.Option(None, help="Address to listen on, instead of WEB_HOST (127.0.0.1).")
_PORT = typer.Option(None, min=1, max=65535, help="Port, instead of WEB_PORT (8585).")


def web(host: str | None = _HOST, port: int | None = _PORT) -> None:
    """Run the status page: jobs, fleet, keys and queues in a browser, read-only.

    Default address: http://127.0.0.1:8585, for everybody on this machine.
    From another machine: ssh -L 8585:127.0.0.1:8585 HOST

    To listen on another address, set WEB_TOKEN or WEB_TOKEN_FILE (make a token:
    openssl rand -hex 24). A browser asks for it once; a program sends it as
    Authorization: Bearer. The page speaks plain HTTP: put a TLS proxy in front
    of it where the network is not your own.

    It needs REDIS_URL, and STATE_DIR to show the build logs of this host.
    """
    given: dict[str, Any] = {name: value for name, value in (("web_host", host), ("web_port", port)) if value is not None}
    settings = load([Role.WEB], **given)
    logs.configure(level=settings.log_level, format=settings.log_format, node=settings.node_name)
    if importlib.util.find_spec("jinja2") is None:
        raise OffchainVMError("The status page needs the package jinja2.", remedy='Install the extra: pip install "offchainvm[web]".')
    _serve(settings)


def _serve(settings: Settings) -> None:
    # Late: jinja2 may be missing.
    from offchainvm.web.access import Access  # noqa: PLC0415
    from offchainvm.web.pages import Pages  # noqa: PLC0415
    from offchainvm.web.server import Site, WebServer  # noqa: PLC0415

    redis = connect(settings.redis_url)
    site = Site(Pages(redis, state_dir=settings.state_dir), Access(settings.web_host, settings.web_token))
    where = f"{settings.web_host}:{settings.web_port}"
    try:
        server = WebServer(site, host=settings.web_host, port=settings.web_port)
    except OSError as error:
        raise OffchainVMError(f"Cannot listen on {where}: {error.strerror}.", remedy="Name another WEB_PORT.") from None
    health.add_check("redis", lambda: bool(redis.ping()))
    member = Member(f"web@{settings.node_name}", settings.node_name, (Role.WEB.value,), capacity=0)
    serve(settings.metrics_port, name=member.id)
    with server:
        typer.echo(f"The status page is at http://{where}/ (Ctrl-C ends it).")
        heartbeat = Heartbeat(Registry(redis), member, well=health.is_live).start()
        health.touch_until_asked(member.id, StopSignal())
        notify.tell(notify.STOPPING)
        heartbeat.stop()
