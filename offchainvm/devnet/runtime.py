"""Receipts: made of transactions, executed one by one, rolled back as a whole when an action fails, logs kept."""

from __future__ import annotations

import base64
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from offchainvm.devnet.borsh import Action, AddKey, CreateAccount, DeleteKey, FunctionCall, Transaction, Transfer
from offchainvm.devnet.contract import REQUEST_GAS, RESOLVE_GAS, Contract, Panic
from offchainvm.devnet.ledger import Ledger
from offchainvm.devnet.records import Block, Outcome, Receipt, TransactionRecord, new_hash
from offchainvm.devnet.validity import RECEIPT_GAS, SEND_GAS, InvalidTx, Protocol, cost, deposits, prepaid_gas

_GAS_NEEDED = {"request_execution": REQUEST_GAS, "resolve_execution": RESOLVE_GAS}


class ActionFailure(Exception):
    """An action fails for a reason of the chain's own; ``kind`` is an ``ActionErrorKind``."""

    def __init__(self, kind: Any) -> None:
        super().__init__(str(kind))
        self.kind = kind


@dataclass
class Yielded:
    """A callback that waits for its data, until ``expires_at`` (a height)."""

    receipt: Receipt
    request: dict[str, Any]
    expires_at: int


class _Call:
    """The contract's host while one receipt runs; what it sends is kept back until the receipt has succeeded."""

    def __init__(self, runtime: Runtime, receipt: Receipt, block: Block) -> None:
        self.runtime, self.receipt, self.block = runtime, receipt, block
        self.predecessor_id = receipt.predecessor_id
        self.deposit = 0
        self.timestamp_ns = block.timestamp_ns
        self.max_yield_payload_bytes = runtime.protocol.max_yield_payload_bytes
        self.logs: list[str] = []
        self.sent: list[Receipt] = []
        self.log_bytes = 0
        self.created: Receipt = receipt

    def log(self, text: str) -> None:
        size = len(text.encode())
        self.log_bytes += size
        if self.log_bytes > self.runtime.protocol.max_log_bytes:
            raise Panic(f"The length of a log message {size} exceeds the limit {self.runtime.protocol.max_log_bytes}")
        self.logs.append(text)

    def note(self, undo: Any) -> None:
        self.runtime.ledger.note(undo)

    def transfer(self, account_id: str, amount: int) -> None:
        self.runtime.ledger.pay(self.receipt.receiver_id, -amount)
        self.sent.append(self.runtime.new_receipt(self.receipt, account_id, (Transfer(amount),), len(self.sent)))

    def yield_create(self, callback: dict[str, Any]) -> bytes:
        arguments = json.dumps(callback, separators=(",", ":"), ensure_ascii=False).encode()
        action = FunctionCall("on_execution_response", arguments, REQUEST_GAS, 0)
        self.runtime.yields_made += 1  # two actions of one receipt must not share a data id
        receipt = self.runtime.new_receipt(self.receipt, self.receipt.receiver_id, (action,), f"yield {self.runtime.yields_made}")
        _, data_id = new_hash("data id", receipt.id)
        self.runtime.yields[data_id] = Yielded(receipt, callback, self.block.height + self.runtime.protocol.yield_timeout_blocks)
        self.note(lambda: self.runtime.yields.pop(data_id, None))
        self.created = receipt
        return data_id

    def yield_resume(self, data_id: bytes, payload: bytes) -> bool:
        if data_id not in self.runtime.yields:
            return False
        resume = self.runtime.new_receipt(self.receipt, self.receipt.receiver_id, (), len(self.sent))
        resume.resumes, resume.payload = data_id, payload
        self.sent.append(resume)
        return True


class Runtime:
    """The state machine under the blocks."""

    def __init__(self, *, ledger: Ledger, contract: Contract, contract_id: str, protocol: Protocol) -> None:
        self.ledger, self.contract, self.contract_id, self.protocol = ledger, contract, contract_id, protocol
        self.queue: deque[Receipt] = deque()
        self.yields: dict[bytes, Yielded] = {}
        self.yields_made = 0
        self._expired: dict[bytes, Yielded] = {}
        self.executions: dict[int, dict[str, Any]] = {}
        """What tests want to know of each request; no part of the state."""
        self.resolves: list[dict[str, Any]] = []
        """Every call of resolve_execution that was executed."""

    def new_receipt(self, parent: Receipt, receiver_id: str, actions: tuple[Action, ...], salt: object) -> Receipt:
        receipt_id, _ = new_hash(parent.id, str(salt))
        return Receipt(receipt_id, parent.receiver_id, receiver_id, parent.signer_id, parent.signer_public_key, actions, parent.record)

    # Transactions

    def convert(self, transaction: Transaction, block: Block) -> TransactionRecord:
        """A valid transaction becomes a receipt for the next block; nonce and money are spent here."""
        account = self.ledger.accounts[transaction.signer_id]
        key = account.keys[transaction.public_key_text]
        price = cost(transaction, self.protocol)
        account.balance -= price
        if key.allowance is not None:
            key.allowance -= price
        key.use(transaction.nonce, block.height)
        receipt_id, _ = new_hash("receipt", transaction.hash, block.hash)
        burnt = SEND_GAS * self.protocol.gas_price
        outcome = Outcome(
            transaction.hash,
            block.hash,
            block.height,
            transaction.signer_id,
            {"SuccessReceiptId": receipt_id},
            [],
            [receipt_id],
            SEND_GAS,
            burnt,
        )
        record = TransactionRecord(transaction, block.height, outcome, root=receipt_id)
        refund = (prepaid_gas(transaction) + RECEIPT_GAS) * self.protocol.gas_price
        receipt = Receipt(
            receipt_id, transaction.signer_id, transaction.receiver_id, transaction.signer_id, transaction.public_key_text,
            transaction.actions, record, refund_yocto=refund,
        )  # fmt: skip
        self._enqueue(receipt)
        block.transactions.append(record)
        return record

    @staticmethod
    def invalid_in_chunk(transaction: Transaction, reason: InvalidTx, block: Block) -> TransactionRecord:
        """An invalid transaction that a chunk carried: an outcome under its hash, nothing else (protocol 83 on)."""
        outcome = Outcome(transaction.hash, block.hash, block.height, transaction.signer_id, {"Failure": {"InvalidTxError": reason}})
        record = TransactionRecord(transaction, block.height, outcome)
        block.transactions.append(record)
        return record

    # Receipts

    def expire(self, height: int) -> None:
        """Resume with nothing what waited too long. Requests expire in the order in which they were made."""
        for data_id, waiting in list(self.yields.items()):
            if waiting.expires_at > height:
                return
            timed_out = self.new_receipt(waiting.receipt, waiting.receipt.receiver_id, (), "timeout")
            timed_out.resumes = data_id
            self.queue.append(timed_out)
            # Out of reach from now on: a resolve in this very block comes too late.
            del self.yields[data_id]
            self._expired[data_id] = waiting

    def step(self, block: Block) -> int:
        """Execute the first receipt of the queue in this block; gives the gas it burnt."""
        receipt = self.queue.popleft()
        if receipt.resumes is None:
            return self._execute(receipt, block)
        waiting = self.yields.pop(receipt.resumes, None) or self._expired.pop(receipt.resumes, None)
        return 0 if waiting is None else self._call_back(waiting, receipt, block)

    def _enqueue(self, receipt: Receipt) -> None:
        self.queue.append(receipt)
        if receipt.resumes is None:
            receipt.record.receipts.append(receipt)
            receipt.record.waiting.add(receipt.id)

    def _execute(self, receipt: Receipt, block: Block) -> int:
        call = _Call(self, receipt, block)
        status: dict[str, Any] = {"SuccessValue": ""}
        burnt, index = RECEIPT_GAS, 0
        try:
            with self.ledger.atomically():
                for index, action in enumerate(receipt.actions):  # noqa: B007 the index tells which action failed
                    burnt += min(_GAS_NEEDED.get(action.method_name, 0), action.gas) if isinstance(action, FunctionCall) else 0
                    status = self._act(action, receipt, call, block)
        except ActionFailure as failure:
            status = {"Failure": {"ActionError": {"index": index, "kind": failure.kind}}}
            self.ledger.pay(receipt.predecessor_id, deposits(receipt.record.transaction) if receipt.id == receipt.record.root else 0)
            call.sent.clear()
        self._note_resolves(receipt, status, block)
        self._settle(receipt, call, status, burnt, block)
        return burnt

    def _act(self, action: Action, receipt: Receipt, call: _Call, block: Block) -> dict[str, Any]:
        account = self.ledger.accounts.get(receipt.receiver_id)
        if isinstance(action, CreateAccount):
            if account is not None:
                raise ActionFailure({"AccountAlreadyExists": {"account_id": receipt.receiver_id}})
            self.ledger.create(receipt.receiver_id)
        elif account is None:
            raise ActionFailure({"AccountDoesNotExist": {"account_id": receipt.receiver_id}})
        elif isinstance(action, Transfer):
            self.ledger.pay(receipt.receiver_id, action.deposit)
        elif isinstance(action, FunctionCall):
            return self._call(action, receipt, call)
        elif account.live_key(action.public_key) is None:
            if isinstance(action, DeleteKey):
                raise ActionFailure({"DeleteKeyDoesNotExist": {"account_id": receipt.receiver_id, "public_key": action.public_key}})
            self.ledger.add_key(account, action.public_key, action.permission, block.height)
        elif isinstance(action, AddKey):
            raise ActionFailure({"AddKeyAlreadyExists": {"account_id": receipt.receiver_id, "public_key": action.public_key}})
        else:
            self.ledger.delete_key(account.keys[action.public_key], block.height)
        return {"SuccessValue": ""}

    def _call(self, action: FunctionCall, receipt: Receipt, call: _Call) -> dict[str, Any]:
        if receipt.receiver_id != self.contract_id:
            missing = {"CompilationError": {"CodeDoesNotExist": {"account_id": receipt.receiver_id}}}
            raise ActionFailure({"FunctionCallError": missing})
        self.ledger.pay(receipt.receiver_id, action.deposit)
        call.deposit = action.deposit
        try:
            if action.gas < _GAS_NEEDED.get(action.method_name, 0):
                raise Panic("Exceeded the prepaid gas.")
            if action.method_name == "request_execution":
                request_id = self.contract.request_execution(call, action.args)
                self._note_request(request_id, receipt, call)
                return {"SuccessReceiptId": call.created.id}
            if action.method_name == "resolve_execution":
                if action.deposit:
                    raise Panic.of("panicked at src/execution.rs:4:1:\nMethod resolve_execution doesn't accept deposit")
                self.contract.resolve_execution(call, action.args)
                return {"SuccessValue": ""}
        except Panic as panic:
            raise ActionFailure({"FunctionCallError": {"ExecutionError": str(panic)}}) from None
        raise ActionFailure({"FunctionCallError": {"MethodResolveError": "MethodNotFound"}})

    def _call_back(self, waiting: Yielded, resume: Receipt, block: Block) -> int:
        receipt = waiting.receipt
        call = _Call(self, receipt, block)
        value, error = None, None
        try:
            with self.ledger.atomically():
                value = self.contract.on_execution_response(call, waiting.request, resume.payload)
            returned = base64.b64encode(json.dumps(value, ensure_ascii=False).encode()).decode()
            status: dict[str, Any] = {"SuccessValue": returned}
        except Panic as panic:
            error = str(panic)
            call.sent.clear()
            status = {"Failure": {"ActionError": {"index": 0, "kind": {"FunctionCallError": {"ExecutionError": error}}}}}
        self._note_result(waiting, resume, value, error, block)
        self._settle(receipt, call, status, RESOLVE_GAS, block)
        return RESOLVE_GAS

    def _settle(self, receipt: Receipt, call: _Call, status: dict[str, Any], burnt: int, block: Block) -> None:
        tokens = burnt * self.protocol.gas_price
        sent = [sent.id for sent in call.sent if sent.resumes is None]
        if "SuccessReceiptId" in status:
            # The callback may wait for minutes: it belongs to the transaction from here on.
            sent.insert(0, call.created.id)
            receipt.record.receipts.append(call.created)
            receipt.record.waiting.add(call.created.id)
        outcome = Outcome(receipt.id, block.hash, block.height, receipt.receiver_id, status, call.logs, sent, burnt, tokens)
        receipt.record.outcomes.append(outcome)
        receipt.record.waiting.discard(receipt.id)
        block.executed.append((receipt, outcome))
        for new in call.sent:
            self._enqueue(new)
        self._refund_gas(receipt, max(receipt.refund_yocto - tokens, 0))

    def _refund_gas(self, receipt: Receipt, refund: int) -> None:
        self.ledger.pay(receipt.signer_id, refund)
        account = self.ledger.accounts.get(receipt.signer_id)
        key = account.keys.get(receipt.signer_public_key) if account is not None else None
        if key is not None and key.allowance is not None:
            key.allowance += refund

    # What tests want to know

    def _note_request(self, request_id: int, receipt: Receipt, call: _Call) -> None:
        data_id = bytes(self.contract.pending[request_id]["data_id"]).hex()
        self.executions[request_id] = {
            "request_id": request_id, "data_id": data_id, "transaction_hash": receipt.record.transaction.hash,
            "height": call.block.height, "payment": str(call.deposit), "state": "pending",
        }  # fmt: skip
        call.note(lambda: self.executions.pop(request_id, None))

    def _note_resolves(self, receipt: Receipt, status: dict[str, Any], block: Block) -> None:
        for index, action in enumerate(receipt.actions):
            if isinstance(action, FunctionCall) and action.method_name == "resolve_execution":
                arguments = action.args.decode(errors="replace")
                told = {
                    "transaction_hash": receipt.record.transaction.hash,
                    "action": index,
                    "arguments": arguments,
                    "height": block.height,
                }
                self.resolves.append(
                    {**told, "signer_public_key": receipt.signer_public_key, "accepted": "Failure" not in status, "status": status}
                )

    def _note_result(self, waiting: Yielded, resume: Receipt, value: str | None, error: str | None, block: Block) -> None:
        payment = int(waiting.request["payment"])
        response = None if resume.payload is None else json.loads(resume.payload)
        charged = self.contract.pricing.cost(response["resources_used"]) if error is None and response is not None else 0
        state = "timed_out" if response is None else "failed" if error is not None else "succeeded"
        resolved_by = None if response is None else resume.record.transaction.hash
        told = {"state": state, "value": value, "error": error, "response": response}
        told |= {"charged": str(charged), "refund": str(max(payment - charged, 0) if charged else 0)}
        told |= {"resolved_by": resolved_by, "resolved_height": block.height}
        self.executions.setdefault(waiting.request["request_id"], {}).update(told)
