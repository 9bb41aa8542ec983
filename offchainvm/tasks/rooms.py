"""Opens the rooms that the stages work with, from a role's settings, once a process."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from redis import Redis

from offchainvm import logs
from offchainvm.contract import ContractReader
from offchainvm.coordinator import Coordinator
from offchainvm.engine.base import Executor
from offchainvm.engine.identity import WASMER, find_engine
from offchainvm.engine.limits import MIB
from offchainvm.engine.supervisor import Supervisor
from offchainvm.engine.trial import run_module
from offchainvm.errors import ExecutionError, OffchainVMError, SettingsError
from offchainvm.executions import Executions
from offchainvm.jobs.connection import connect
from offchainvm.jobs.lookups import Lookups
from offchainvm.jobs.single_flight import SingleFlight
from offchainvm.jobs.store import JobStore
from offchainvm.modules import ModuleCache
from offchainvm.near.blocks import BlockService
from offchainvm.near.rpc import Rpc
from offchainvm.settings import Settings

log = logs.get_logger()

_NATIVE_CODE_SHARE = 0.5
_ENGINE_REMEDY = "`offchainvm doctor --role execute` looks at what it needs; where that is well, restart the worker."


def owner(settings: Settings) -> str:
    """Who holds a lease: this worker, and which of its processes."""
    return f"{settings.node_name}:{os.getpid()}"


@functools.cache
def redis_client(url: str) -> Redis:
    return connect(url)


def state_dir(settings: Settings) -> Path:
    return settings.state_dir.expanduser()


def job_store(settings: Settings) -> JobStore:
    return JobStore(redis_client(settings.redis_url))


def single_flight(settings: Settings) -> SingleFlight:
    return SingleFlight(redis_client(settings.redis_url))


def coordinator(settings: Settings) -> Coordinator:
    return Coordinator(settings.api_base_url, settings.api_auth_token, worker_id=settings.node_name, ca_bundle=settings.ca_bundle)


def rpc(settings: Settings) -> Rpc:
    return Rpc(settings.near_rpc_url, ca_bundle=settings.ca_bundle)


def modules_folder(settings: Settings) -> Path:
    return state_dir(settings) / "modules"


def module_cache(settings: Settings) -> ModuleCache:
    share = int(settings.wasm_cache_max_mb * MIB * (1 - _NATIVE_CODE_SHARE))
    return ModuleCache(modules_folder(settings), max_bytes=share, coordinator=coordinator(settings))


def contract_reader(settings: Settings) -> ContractReader:
    return ContractReader(
        rpc=rpc(settings),
        blocks=BlockService(
            settings.neardata_api_url,
            api_key=settings.neardata_api_key,
            requests_per_minute=settings.neardata_requests_per_minute,
            ca_bundle=settings.ca_bundle,
        ),
        contract_id=settings.offchainvm_contract_id,
        event_standard=settings.event_standard,
    )


def executions(settings: Settings, records: Lookups, chain: ContractReader) -> Executions:
    return Executions(records=records, modules=module_cache(settings), chain=chain)


def executor(settings: Settings) -> Executor:
    share = int(settings.wasm_cache_max_mb * MIB * _NATIVE_CODE_SHARE)
    return Supervisor(
        cache_folder=state_dir(settings) / "native-code",
        cache_max_bytes=share,
        metering=settings.metering,
        engine=settings.wasm_runtime,
        wasmer_python=settings.wasmer_python,
        components=settings.wasm_components,
    )


def check_engine(settings: Settings) -> str:
    """Have the engine run a module, in a folder of its own.

    Raises:
        OffchainVMError: it does not run here.
    """
    with tempfile.TemporaryDirectory(prefix="offchainvm-probe-") as folder:
        here = settings.model_copy(update={"state_dir": Path(folder)})
        try:
            with executor(here) as engine:
                result = run_module(engine)
        except ExecutionError as error:
            raise OffchainVMError(f"The engine runs nothing here: {error.text}.", remedy=_ENGINE_REMEDY) from error
    return f"{result.engine} {result.engine_version}"


def engine_problems(settings: Settings) -> list[str]:
    """What keeps an execute worker from running anything, each with its remedy: as the engine itself says it."""
    problems = []
    try:
        executor(settings).close()
    except SettingsError as error:
        problems += error.problems
    except OSError as error:
        problems.append(f"STATE_DIR: {state_dir(settings)} cannot be used ({error.strerror}). Change its owner, or set STATE_DIR.")
    if settings.wasmer_python is not None and settings.wasm_runtime != WASMER:
        try:
            find_engine(WASMER, wasmer_python=settings.wasmer_python)
        except SettingsError as error:
            unusable = " ".join(error.problems)
            log.warning("A setting that WASM_RUNTIME=wasmer needs does not hold.", action="check_engine", reason=unusable)
    return problems
