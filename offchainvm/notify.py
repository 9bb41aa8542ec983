"""Tells systemd how this process is (sd_notify(3)); nothing happens where no systemd asks to be told."""

from __future__ import annotations

import os
import socket

from offchainvm.logs import get_logger

log = get_logger()
ALIVE = "READY=1\nWATCHDOG=1"
"""Ready as soon as the loops turn for the first time; saying it again changes nothing."""
STOPPING = "STOPPING=1"


def tell(state: str) -> None:
    """Send ``state``, lines of NAME=value, to the socket that systemd named. Never raises: nobody stops working for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    # The variables are inherited: what a unit's main process starts must not speak for it.
    if not address or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as there:
            # A leading @ is how an abstract address is written.
            there.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError as error:
        log.warning("systemd could not be told how this process is.", action="notify_systemd", error=error.strerror)
