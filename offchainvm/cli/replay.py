"""``offchainvm jobs replay``: a finished job's module once more, here, and whether it ends as the record says."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from offchainvm.cli import report
from offchainvm.cli.run import as_dict, show
from offchainvm.engine.base import ExecutionResult
from offchainvm.errors import BuildCode, JobCode, JobError, OffchainVMError, Status
from offchainvm.executions import answer_of
from offchainvm.jobs.record import Job
from offchainvm.models import ExecutionResponse, ResourcesUsed
from offchainvm.settings import Role, Settings, load
from offchainvm.tasks import rooms

EXIT_DIFFERS = 3
_OF_EXECUTIONS = {*(status.value for status in Status), JobCode.OUTPUT_TOO_LARGE.value}
_OF_OTHERS = {code.value for code in (*BuildCode, *JobCode)} - {JobCode.OUTPUT_TOO_LARGE.value}
_GONE = {
    JobCode.WASM_UNAVAILABLE.value: ("module", "`offchainvm build` makes it anew; `offchainvm run` runs a module's file."),
    JobCode.INPUT_UNAVAILABLE.value: ("input", "`offchainvm run MODULE --input …` runs the module with an input that you have."),
}


@dataclass(frozen=True)
class Compared:
    """One property of both runs, in words; ``agrees`` is None where it cannot be compared."""

    name: str
    recorded: str
    replayed: str
    agrees: bool | None


def replay(job: Job, *, as_json: bool) -> int:
    """Run the job again and print the report of ``offchainvm run``, and the comparison; the exit code.

    Raises:
        OffchainVMError: the job did not run yet, or never; its module or its input is gone; a service is away.
    """
    recorded = _recorded(job)
    result = _run(job, load([Role.EXECUTE]))
    rows = compare(job, recorded, result)
    agrees = all(row.agrees is not False for row in rows)
    if as_json:
        told = {"request_id": job.request_id, "data_id": job.data_id, "agrees": agrees, "compared": [asdict(row) for row in rows]}
        typer.echo(json.dumps({**as_dict(result), "replay": told}, indent=2))
    else:
        show(result)
        report.console().print(report.comparison_table((row.name, row.recorded, row.replayed, row.agrees) for row in rows))
    return 0 if agrees else EXIT_DIFFERS


def compare(job: Job, recorded: ExecutionResponse, result: ExecutionResult) -> list[Compared]:
    """The answer in the record beside the one that a worker would make of ``result``: the same sizing, the same error codes."""
    replayed = answer_of(job, result).response
    counts = [one.resources_used.instructions for one in (recorded, replayed)]
    return [
        Compared("module", job.module_sha256 or "unknown", result.module_sha256, job.module_sha256 == result.module_sha256 or None),
        Compared("status", _status(recorded), _status(replayed), _status(recorded) == _status(replayed)),
        Compared("output", _output(recorded), _output(replayed), recorded.return_value == replayed.return_value),
        # What the clock ended, it ended somewhere.
        Compared("instructions", f"{counts[0]:,}", f"{counts[1]:,}", counts[0] == counts[1] if result.instructions_exact else None),
    ]


def _recorded(job: Job) -> ExecutionResponse:
    response = job.response
    if response is None:
        raise OffchainVMError("This job has no answer yet.", remedy=f"See `offchainvm jobs show {job.request_id}`.")
    code = _status(response)
    unsure = code in _OF_OTHERS and response.resources_used == ResourcesUsed()
    if code not in _OF_EXECUTIONS or unsure:
        raise OffchainVMError(f"The module of this job never ran: the job ended with {code}.", remedy="`offchainvm build` repeats a build.")
    return response


def _run(job: Job, settings: Settings) -> ExecutionResult:
    """In folders of its own: what a worker of this host has, stays as it is."""
    with tempfile.TemporaryDirectory(prefix="offchainvm-replay-") as folder:
        here = settings.model_copy(update={"state_dir": Path(folder)})
        _copy_module(job, rooms.modules_folder(settings), rooms.modules_folder(here))
        found = rooms.executions(here, rooms.job_store(here), rooms.contract_reader(here))
        try:
            module, request = found.module_of(job, sha256=job.module_sha256), found.request_of(job)
        except JobError as error:
            if error.code not in _GONE:
                raise
            what, remedy = _GONE[error.code]
            raise OffchainVMError(f"The {what} of this job is gone: {error.sentence}.", remedy=remedy) from error
        with rooms.executor(here) as executor:
            return executor.execute(module.path, request)


def _copy_module(job: Job, source: Path, target: Path) -> None:
    """What this host has need not be downloaded, and may be there no more; it is checked where it is read."""
    target.mkdir(parents=True)
    for file in source.glob(f"{job.source_key}.{job.module_sha256 or '*'}.wasm"):
        with suppress(OSError):
            shutil.copy(file, target)


def _status(response: ExecutionResponse) -> str:
    return Status.OK.value if response.success else (response.error or "").partition(":")[0]


def _output(response: ExecutionResponse) -> str:
    return "none" if response.return_value is None else report.value_text(response.return_value)
