"""The resolve worker beside an execute worker that finds the operator's key in its environment.

It has a pool of its own, so a long execution never delays a resolve. What it counts is shown by the execute worker, which has the
port of both. A keeper process between the two holds the key
for restarts: the execute worker itself forgets it, so no process that runs guests has it. A keeper that dies takes the
key with it, so the execute worker ends too: whatever supervises that starts it again, with the key.

    execute worker (no key) ── keeper: python -m offchainvm.resolve_child ── celery worker -Q resolve
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from offchainvm import logs
from offchainvm.processes import StopSignal, bare_environment, bound_command, forget_environment_variable

log = logs.get_logger()

METRICS_SOCKET = "OFFCHAINVM_METRICS_SOCKET"
KEY_VARIABLES = ("OPERATOR_PRIVATE_KEY", "OPERATOR_PRIVATE_KEYS")
WORKER_COMMAND = [sys.executable, "-m", "celery", "-A", "offchainvm", "worker", "-Q", "resolve", "-P", "solo"]
_PASSED_ON = ("OFFCHAINVM_LIVE_DIR", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where its liveness file goes, and whom this host trusts (``authorities``)."""
STOP_SECONDS = 20.0
LONGEST_PAUSE_SECONDS = 30.0


class ResolveChild:
    """The keeper, seen from the execute worker: started once, stopped with it.

    Args:
        settings: all that it gets of this process's environment, besides what every program needs.
        metrics_socket: the descriptor over which it hands over what it counts (``metrics.pool``).
    """

    def __init__(self, *, settings: Mapping[str, str], metrics_socket: int) -> None:
        keeper = [sys.executable, "-m", "offchainvm.resolve_child"]
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment = {**bare_environment(), **passed, **settings, "METRICS_PORT": "0", METRICS_SOCKET: str(metrics_socket)}
        self._process = subprocess.Popen(bound_command(keeper, signal_number=signal.SIGTERM), env=environment, pass_fds=(metrics_socket,))
        for name in KEY_VARIABLES:
            forget_environment_variable(name)
        self._stopping = False
        self._lost = threading.Event()
        threading.Thread(target=self._watch, name="resolve-keeper", daemon=True).start()
        log.info("A resolve worker runs beside this worker.", action="start_resolve_child", pid=self._process.pid)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def lost(self) -> bool:
        """The keeper ended without being asked to, and this process was asked to end for it."""
        return self._lost.is_set()

    def _watch(self) -> None:
        exit_code = self._process.wait()
        if self._stopping:
            return
        self._lost.set()
        log.error(
            "The keeper of the operator's key ended: nothing is resolved from here any more. This worker stops, "
            "so that whatever supervises it starts it again with the key.",
            action="lose_resolve_child",
            exit_code=exit_code,
        )
        os.kill(os.getpid(), signal.SIGTERM)

    def stop(self) -> None:
        """Let the child finish what it has in hand; kill it when it does not."""
        self._stopping = True
        _stop(self._process, STOP_SECONDS + 5)


def _stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def keep_running(command: list[str], *, descriptors: Sequence[int] = ()) -> None:
    """Run ``command``, with these ``descriptors``, again and again, with back-off, until this process gets SIGTERM or SIGINT."""
    stopping = StopSignal(second_ends=False)
    pause_seconds = 1.0
    while not stopping.number:
        started = time.monotonic()
        process = subprocess.Popen(bound_command(command, signal_number=signal.SIGTERM), pass_fds=descriptors)
        while process.poll() is None and not stopping.wait(0.5):
            pass
        if stopping.number:
            return _stop(process, STOP_SECONDS)
        log.error("The resolve worker ended; it starts again.", action="restart_resolve_child", exit_code=process.returncode)
        pause_seconds = 1.0 if time.monotonic() - started > 60 else min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        stopping.wait(pause_seconds)
    return None


if __name__ == "__main__":
    logs.configure(level="info", format="console", node=f"resolve-keeper-{os.getpid()}")
    keep_running(WORKER_COMMAND, descriptors=[int(os.environ[METRICS_SOCKET])])
