"""The whole world on this machine: Redis, Coordinator, chain, bridge, workers. For demo, dev and acceptance tests.

Everything is on free loopback ports, logs and state are in one folder, each process has a clean environment with the
settings (and so the secrets) of its role alone, and nothing outlives ``stop`` or this process.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from offchainvm.cli.process import ManagedProcess, clean_environment
from offchainvm.devnet.chain import GENESIS_HEIGHT
from offchainvm.devnet.client import DevnetClient
from offchainvm.devnet.embedded_redis import EmbeddedRedis, free_port
from offchainvm.devnet.genesis import Keys
from offchainvm.errors import OffchainVMError
from offchainvm.settings import Role, setting_table

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
SERVICES = ("coordinator", "chain")
DEFAULT_ROLES = ("bridge", "compile", "execute", "resolve")
_WORKER = ("-m", "celery", "-A", "offchainvm", "worker", "--without-gossip", "--without-mingle", "-Q")
# A resolve takes milliseconds, a build has its own processes: a pool is for executions.
_POOLS: Mapping[str, Sequence[str]] = {"compile": ("-c", "2"), "execute": ("-c", "2"), "resolve": ("-P", "solo")}

_PAGES = {"flower": Role.DASHBOARD, "web": Role.WEB}


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """What a stack consists of; the defaults are one of each."""

    roles: Sequence[str] = DEFAULT_ROLES
    """Of bridge, monitor, compile, execute, resolve, flower, web; a role named twice runs twice (``execute``, ``execute-2``)."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of all processes, by their names; each process gets those that its role reads."""
    role_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """More settings for the processes of one role (or of one process, by its name)."""
    coordinator_arguments: Sequence[str] = ()
    """More arguments of ``python -m offchainvm.devnet coordinator``."""
    chain_arguments: Sequence[str] = ("--block-time", "0.3")
    """More arguments of ``python -m offchainvm.devnet chain``."""
    worker_arguments: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Arguments of ``celery worker`` by role, instead of the default pool."""
    releases: Mapping[str, Path] = field(default_factory=dict)
    """By a process' name (``execute``, ``execute-2``): the folder with the code of another release that it runs, instead of this one's."""
    redis_persistence: bool = False
    """Append-only file, synced every second."""


class Stack:
    """``with Stack(StackOptions(...)) as stack: stack.client.request_execution(...)``.

    Args:
        folder: for logs and state; kept. None: a temporary one, gone after ``stop``.
        say: gets a line when a part is up.
    """

    def __init__(
        self, options: StackOptions | None = None, *, folder: Path | None = None, say: Callable[[str], None] | None = None
    ) -> None:
        self.options = options or StackOptions()
        self.processes: dict[str, ManagedProcess] = {}
        self.redis: EmbeddedRedis | None = None
        self._given_folder = folder
        self._folder: Path | None = folder
        self._say = say or (lambda _line: None)
        self._facts: dict[str, dict[str, Any]] = {}
        self._client: DevnetClient | None = None

    @property
    def folder(self) -> Path:
        """Logs are in ``logs/``, state in ``state/``."""
        if self._folder is None:
            raise RuntimeError("the stack was not started")
        return self._folder

    @property
    def coordinator_url(self) -> str:
        return str(self._facts["coordinator"]["url"])

    @property
    def chain_url(self) -> str:
        """The RPC; below it the block service and /control."""
        return str(self._facts["chain"]["url"])

    @property
    def redis_url(self) -> str:
        if self.redis is None:
            raise RuntimeError("the stack was not started")
        return self.redis.url

    @property
    def api_token(self) -> str:
        """What the Coordinator wants to see; a secret, if of a world of our own."""
        return (self.folder / "coordinator-token").read_text().strip()

    @property
    def keys(self) -> Keys:
        """Accounts and keys of the chain."""
        return Keys.load(self.folder / "chain-keys.json")

    @property
    def client(self) -> DevnetClient:
        """A caller of the contract."""
        if self._client is None:
            self._client = DevnetClient(self.chain_url, self.keys)
        return self._client

    def start(self) -> Stack:
        """Start everything; returns when everything may be used.

        Raises:
            Unavailable: a part did not come up; with the tail of its log. What was started is stopped again.
        """
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="offchainvm-"))
        (self._folder / "logs").mkdir(parents=True, exist_ok=True)
        try:
            self._start_services()
            self.add(*self.options.roles)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop everything in the order of the flow: SIGTERM, then SIGKILL to what is left."""
        if self._client is not None:
            self._client.close()
            self._client = None
        roles = [process for name, process in self.processes.items() if name not in SERVICES]
        services = [process for name, process in self.processes.items() if name in SERVICES]
        for group in (roles, services):
            for process in group:
                process.signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            for process in group:
                process.end(max(0.1, deadline - time.monotonic()))
        self.processes.clear()
        if self.redis is not None:
            self.redis.stop()
            self.redis = None
        if self._given_folder is None and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one process (``redis`` is one too); with SIGKILL returns when it is gone, its children not looked at."""
        if name == "redis" and self.redis is not None:
            return self.redis.kill() if number == signal.SIGKILL else os.kill(self.redis.pid or 0, number)
        process = self.processes[name]
        process.signal(number)
        if number == signal.SIGKILL:
            process.wait(STOP_SECONDS)
        return None

    def restart(self, name: str) -> None:
        """Start one process again, after an orderly stop where it still runs: same ports, same settings, same state."""
        if name == "redis" and self.redis is not None:
            self.redis.restart()
            return
        process = self.processes[name]
        process.stop(STOP_SECONDS)
        self._forget_liveness(name)
        process.start()
        process.wait_ready(READY_SECONDS)

    def add(self, *roles: str) -> list[str]:
        """One more process of each role, ready; their names."""
        added = [self._role_process(role) for role in roles]
        for process in added:
            self._forget_liveness(process.name)
            process.start()
        for process in added:
            process.wait_ready(READY_SECONDS)
            self._say(f"{process.name:<12} process {process.pid}")
        return [process.name for process in added]

    def log_of(self, name: str) -> str:
        """All that a process has logged."""
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def settings_for(self, role: Role, *, name: str = "") -> dict[str, str]:
        """The settings that a process of ``role`` gets, its secrets included."""
        wanted = {row.name for row in setting_table() if role in row.roles}
        own = {**self.options.role_settings.get(role.value, {}), **self.options.role_settings.get(name, {})}
        return {key: value for key, value in {**self._common_settings(), **self.options.settings, **own}.items() if key in wanted}

    def _start_services(self) -> None:
        folder = self.folder / "redis"
        folder.mkdir(exist_ok=True)
        self.redis = EmbeddedRedis(folder, persistence=self.options.redis_persistence).start()
        self._say(f"Redis        {self.redis.url}")
        self._service("coordinator", ["--token-file", str(self.folder / "coordinator-token"), *self.options.coordinator_arguments])
        self._service("chain", ["--keys-file", str(self.folder / "chain-keys.json"), *self.options.chain_arguments])
        for name in SERVICES:
            self.processes[name].wait_ready(READY_SECONDS)
            self._facts[name] = json.loads(self.processes[name].output().splitlines()[0])
            # It took a free port for itself; restarted, it is found where it was.
            self.processes[name].command += ["--port", str(urlsplit(self._facts[name]["url"]).port)]
            self._say(f"{name:<12} {self._facts[name]['url']}")

    def _service(self, name: str, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "offchainvm.devnet", name, *arguments]
        self._add_process(name, command, environment=clean_environment({}), ready=lambda process: "\n" in process.output())
        self.processes[name].start()

    def _role_process(self, role: str) -> ManagedProcess:
        count = sum(name == role or name.startswith(f"{role}-") for name in self.processes) + 1
        name = role if count == 1 else f"{role}-{count}"
        if role in _PAGES:
            return self._page(role, name)
        port = free_port()
        self._facts[name] = {"health": f"http://127.0.0.1:{port}"}
        own = {"WORKER_ID": self.worker_id(name), "METRICS_PORT": str(port)}
        settings = {**self.settings_for(Role(role), name=name), **own}
        code = {"PYTHONPATH": str(self.options.releases[name])} if name in self.options.releases else {}
        live = {"OFFCHAINVM_LIVE_DIR": str(self._live_folder(name))}
        environment = clean_environment({**settings, **live, **code}, builds=role == "compile")
        return self._add_process(name, self._command(role), environment=environment, ready=self._tells_that_it_lives)

    def health_url(self, name: str) -> str:
        """Where a process shows ``/metrics``, ``/health/live`` and ``/health/ready``."""
        return str(self._facts[name]["health"])

    def worker_id(self, name: str) -> str:
        """WORKER_ID of a process: of this folder's stacks alone, since a compile worker removes what an earlier one of its name left."""
        return f"{name}-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:6]}"

    def _command(self, role: str) -> list[str]:
        if role in {"bridge", "monitor"}:
            return [sys.executable, "-m", "offchainvm", role]
        pool = self.options.worker_arguments.get(role, _POOLS[role])
        return [sys.executable, *_WORKER, role, *pool]

    def _page(self, role: str, name: str) -> ManagedProcess:
        port = free_port()
        self._facts[name] = {"url": f"http://127.0.0.1:{port}"}
        command, served = {
            "flower": (["celery", "-A", "offchainvm", "flower", "--address=127.0.0.1", f"--port={port}"], "Visit me"),
            "web": (["offchainvm", "web", f"--port={port}"], "The status page is at"),
        }[role]
        environment = clean_environment(self.settings_for(_PAGES[role], name=name))
        command = [sys.executable, "-m", *command]
        return self._add_process(name, command, environment=environment, ready=lambda process: served in process.output())

    def page_url(self, name: str) -> str:
        """Where the page of a process for browsers (``flower``, ``web``) is."""
        return str(self._facts[name]["url"])

    def _add_process(
        self, name: str, command: list[str], *, environment: Mapping[str, str], ready: Callable[[ManagedProcess], bool]
    ) -> ManagedProcess:
        log = self.folder / "logs" / f"{name}.log"
        self.processes[name] = ManagedProcess(name, command, environment=environment, log=log, ready=ready)
        return self.processes[name]

    def _live_folder(self, name: str) -> Path:
        return self.folder / "live" / name

    def _tells_that_it_lives(self, process: ManagedProcess) -> bool:
        folder = self._live_folder(process.name)
        return folder.is_dir() and any(folder.iterdir())

    def _forget_liveness(self, name: str) -> None:
        shutil.rmtree(self._live_folder(name), ignore_errors=True)

    def _common_settings(self) -> dict[str, str]:
        chain = self._facts["chain"]
        first, *more = [key.secret_text for key in (*self.keys.function_call_keys, *self.keys.full_access_keys)]
        return {
            "API_BASE_URL": self.coordinator_url,
            "API_AUTH_TOKEN": self.api_token,
            "NEAR_RPC_URL": chain["rpc_url"],
            "NEARDATA_API_URL": chain["neardata_url"],
            "FASTNEAR_API_URL": chain["fastnear_url"],
            "NEARDATA_REQUESTS_PER_MINUTE": "60000",  # nobody rations the local chain
            "OFFCHAINVM_CONTRACT_ID": chain["contract_id"],
            "OPERATOR_ACCOUNT_ID": chain["operator_account_id"],
            "OPERATOR_PRIVATE_KEY": first,
            "OPERATOR_PRIVATE_KEYS": ",".join(more),
            "REDIS_URL": self.redis_url,
            "STATE_DIR": str(self.folder / "state"),
            # The local Coordinator learns of requests from the monitor alone; from the first block on, so none is missed.
            "ENABLE_EVENT_MONITOR": "true",
            "START_BLOCK_HEIGHT": str(GENESIS_HEIGHT + 1),
            "POLL_TIMEOUT_SECONDS": "2",  # a stop waits for the poll in hand
        }

    def describe(self) -> dict[str, str]:
        """Names and URLs of what runs, for people: no secrets."""
        urls = {"coordinator": self.coordinator_url, "chain": self.chain_url, "redis": self.redis_url}
        pages = {role: self.page_url(role) for role in _PAGES if role in self._facts}
        return {**urls, **pages, "logs": str(self.folder / "logs")}

    def environment_file(self, path: Path) -> None:
        """Write the settings of all roles as a `.env`, so that other commands can look at this stack (mode 0600)."""
        values = {key: value for role in Role for key, value in self.settings_for(role).items() if value}
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(f"{key}={value}\n" for key, value in values.items())

    def running(self) -> list[str]:
        """Names of the processes that run; whoever is missing ended by itself."""
        return [name for name, process in self.processes.items() if process.running]

    def check(self) -> None:
        """Raise when a process ended by itself."""
        for name, process in self.processes.items():
            if not process.running:
                raise OffchainVMError(f"The process {name} ended with exit code {process.exit_code}. Its log ends:\n{process.log_tail()}")

    def __enter__(self) -> Stack:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
