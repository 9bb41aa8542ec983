"""What the worker may ask of the chain about a request: the source and the input that the contract was given, and the network."""

from __future__ import annotations

from pydantic import ValidationError

from offchainvm.errors import JobCode, JobError, OffchainVMError, Unavailable
from offchainvm.jobs.record import Job
from offchainvm.models import CodeSource, KeptRequest
from offchainvm.near.blocks import Block, BlockService
from offchainvm.near.events import requests_in
from offchainvm.near.rpc import Rpc


def kept_request(rpc: Rpc, contract_id: str, data_id: str, request_id: int) -> KeptRequest | None:
    """What the contract keeps of a request; None where it keeps none of this number, or another one (of another data id).

    Raises:
        Unavailable: the chain cannot be asked: that says nothing about the request.
    """
    try:
        kept = KeptRequest.model_validate_json(rpc.view(contract_id, "get_request", {"request_id": request_id}))
    except Unavailable:
        raise
    except (ValidationError, OffchainVMError):
        return None
    return kept if bytes(kept.data_id).hex() == data_id else None


class ContractReader:
    """What the execute stage may ask of the chain: a request's source, its input, its network."""

    def __init__(self, *, rpc: Rpc, blocks: BlockService, contract_id: str, event_standard: str) -> None:
        self._rpc = rpc
        self._blocks = blocks
        self._contract_id = contract_id
        self._event_standard = event_standard
        self._network_id = ""

    def environment_of(self, job: Job) -> dict[str, str]:
        """The variables that wire.md §4 promises to a module."""
        if not self._network_id:
            self._network_id = self._rpc.chain_id()
        return {
            "NEAR_REQUEST_ID": str(job.request_id),
            "NEAR_CONTRACT_ID": self._contract_id,
            "NEAR_NETWORK_ID": self._network_id,
            "NEAR_MAX_INSTRUCTIONS": str(job.limits.max_instructions),
            "NEAR_MAX_MEMORY_MB": str(job.limits.max_memory_mb),
            "NEAR_MAX_EXECUTION_SECONDS": str(job.limits.max_execution_seconds),
        }

    def source_of(self, job: Job) -> CodeSource | None:
        """The code source that the contract keeps for a job's request; None where it keeps none.

        Raises:
            Unavailable: the chain cannot be asked: that says nothing about the source.
        """
        kept = kept_request(self._rpc, self._contract_id, job.data_id, job.request_id)
        return None if kept is None else kept.code_source

    def input_of(self, job: Job) -> str:
        """The input in the request's event, where its height is known.

        Raises:
            JobError: ``input_unavailable``.
        """
        if job.event_height is not None:
            block = self._blocks.block(job.event_height)
            if isinstance(block, Block):
                found = requests_in(block, contract_id=self._contract_id, standard=self._event_standard)
                for event in found.requests:
                    if event.data_id == job.data_id:
                        return event.request.input_data
        raise JobError(JobCode.INPUT_UNAVAILABLE, "the task came without its input, and no event of this request is known to this worker")
