"""A real Redis, a real journal and a scripted RPC: what submit is tested with."""

from __future__ import annotations

import base58
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr
from redis import Redis

from offchainvm.jobs.record import Stage, ToResolve
from offchainvm.jobs.resolves import Resolves
from offchainvm.jobs.store import JobStore
from offchainvm.journal import Journal
from offchainvm.models import CodeSource, CompileTask, ExecutionReport, ExecutionResponse, ResourceLimits
from offchainvm.near import payload
from offchainvm.near.keyring import USUAL_LIMITS
from offchainvm.near.nonces import Nonces
from offchainvm.near.rpc import AccessKey, ProtocolLimits
from offchainvm.near.signer import OperatorKey
from offchainvm.near.transaction import BlockRef
from offchainvm.tasks.submit import Policy, Submitter

HEIGHT = 500


class ScriptedRpc:
    endpoint = "node#1"

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.key_nonce: int | None = 5
        self.fault: BaseException | None = None
        self.before_send = lambda: None
        self.full_access = True
        self.contract = "vm.test"
        self.limits: ProtocolLimits | Exception = USUAL_LIMITS
        self.asked_for_limits = 0

    def protocol_config(self) -> ProtocolLimits:
        self.asked_for_limits += 1
        if isinstance(self.limits, Exception):
            raise self.limits
        return self.limits

    def final_block(self) -> BlockRef:
        return BlockRef(height=HEIGHT, hash=base58.b58encode(b"\1" * 32).decode())

    def access_key(self, account_id: str, public_key: str) -> AccessKey | None:
        if self.key_nonce is None:
            return None
        allowed = {} if self.full_access else {"receiver_id": self.contract, "methods": ("resolve_execution",)}
        return AccessKey(nonce=self.key_nonce, block_height=HEIGHT, full_access=self.full_access, **allowed)

    def send_tx(self, signed: bytes) -> None:
        self.before_send()
        if self.fault is not None:
            raise self.fault
        self.sent.append(signed)


def a_key() -> OperatorKey:
    seed = Ed25519PrivateKey.generate().private_bytes_raw()
    return OperatorKey(SecretStr("ed25519:" + base58.b58encode(seed).decode()))


@pytest.fixture
def house(redis_client: Redis, tmp_path):
    class House:
        height, new_key = HEIGHT, staticmethod(a_key)
        redis, rpc, resolves, store = redis_client, ScriptedRpc(), Resolves(redis_client), JobStore(redis_client)
        keys, window, batch, folder = [a_key()], 2, 1, tmp_path

        def waiting(self, number: int, answer: bytes = b"42") -> str:
            data_id = f"{number:064x}"
            task = CompileTask(request_id=number, data_id=data_id, code_source=CodeSource(repo="a/b", commit="main"), input_data="")
            self.store.accept(task, stage=Stage.EXECUTE, limits=ResourceLimits(), deadline_height=HEIGHT + 200)
            claim = self.store.claim(data_id, Stage.EXECUTE, owner="w", lease_seconds=60)
            fitted = payload.fit(data_id, ExecutionResponse(success=True, return_value=answer))
            report = ExecutionReport(request_id=number, success=True)
            assert self.store.commit(claim, ToResolve(arguments=fitted.arguments, response=fitted.response, report=report))
            return data_id

        def submitter(self, host: str = "host", **options) -> Submitter:
            options.setdefault("nonces", lambda: Nonces(self.redis, network="devnet", account_id="operator.test"))
            return Submitter(
                resolves=self.resolves,
                rpc=self.rpc,
                journal=Journal(self.folder / host, "resolve"),
                keys=self.keys,
                policy=Policy(operator_id="operator.test", contract_id="vm.test", gas=30 * 10**12, window=self.window, batch=self.batch),
                **options,
            )

    return House()
