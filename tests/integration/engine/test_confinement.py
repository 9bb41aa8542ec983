"""A guest that broke out of the engine: its process can do nothing but compute and answer, and dies of anything else."""

from __future__ import annotations

import json
import platform
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import offchainvm
from offchainvm.engine import probe, system_calls
from offchainvm.engine.module import ModuleInfo
from offchainvm.errors import OffchainVMError, Status

X32_BIT = 0x40000000
BREAKING_OUT = {
    "execve": 59, "fork": 57, "clone3": 435, "socket": 41, "openat": 257, "kill": 62, "ptrace": 101, "process_vm_readv": 310, "mount": 165,
    "unshare": 272, "bpf": 321, "keyctl": 250, "io_uring_setup": 425, "prlimit64": 302, "memfd_create": 319,
}  # fmt: skip
SCHED_YIELD = 24
# uretprobe and uprobe: the kernel lets them past every filter, and refuses them wherever it did not place them itself.
PAST_EVERY_FILTER = {335, 336} if platform.machine() == "x86_64" else set()
# In a process of few pages, so that a fork for each call is cheap: each child makes one call, and its parent sees how it ended.
EVERY_CALL = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from offchainvm.engine import confine, system_calls
call, first, ended = ctypes.CDLL(None).syscall, eval(sys.argv[3]), {}
more = {"but_for_components": True} if sys.argv[4] == "components" else {}
for number in json.loads(sys.argv[2]):
    child = os.fork()
    if child == 0:
        confine.isolate(parent=os.getppid())
        os._exit(9 if not system_calls.forbid_other_calls(**more) else call(ctypes.c_long(number), first(), 0, 0, 0, 0, 0) & 0)
    ended[number] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ended))
"""


# The probe, where nothing is given up.
NOTHING_CLOSED = """
import sys
sys.path.insert(0, sys.argv[1])
import offchainvm
from offchainvm.engine import probe
probe.forbid_other_calls = probe.limit_resources = lambda **_: False
probe.main()
"""


def answer_of(script: str, *arguments: str) -> Any:
    root = str(Path(offchainvm.__file__).parent.parent)
    made = subprocess.run([sys.executable, "-I", "-S", "-c", script, root, *arguments], check=True, capture_output=True, text=True)
    return json.loads(made.stdout)


def endings(numbers: list[int], kind: str, *, first: str = "lambda: -1") -> set[int]:
    """How the processes ended that made one call each, with this first argument."""
    return set(answer_of(EVERY_CALL, json.dumps(numbers), first, kind).values())


@pytest.mark.parametrize("kind", ["modules", "components"])
def test_every_system_call_but_those_of_the_table_ends_the_process(kind):
    more = system_calls._FOR_COMPONENTS[platform.machine()] if kind == "components" else {}
    known = {**system_calls._NUMBERS[platform.machine()], **more}
    allowed = {*known.values(), system_calls._IOCTL[platform.machine()], *PAST_EVERY_FILTER}
    others = [number for number in range(470) if number not in allowed]
    assert endings([*others, *(X32_BIT | number for number in (0, 1, 2, 59))], kind) == {-signal.SIGSYS}
    signal_itself = [system_calls._TGKILL[platform.machine()]]
    assert endings(signal_itself, kind, first="os.getppid") == {-signal.SIGSYS}
    assert endings(signal_itself, kind, first="os.getpid") == {0}
    harmless = [known[name] for name in ("write", "close", "munmap", "sched_yield", "getrandom")]
    assert endings([*harmless, system_calls._IOCTL[platform.machine()]], kind) == {0}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the machine code of this break-out is of x86-64")
def test_a_guest_whose_native_code_makes_a_system_call_is_an_engine_crash(run, supervisor):
    """The compiler's worst bug, made by hand: native code in our own cache that calls the kernel itself."""
    secret = 0x1122334455667788
    wat = f'(module (memory (export "memory") 1) (func (export "_start") (i64.store (i32.const 0) (i64.const {secret}))))'
    assert run(wat).status is Status.OK
    key = supervisor._key(run(wat).module_sha256)
    head, native = supervisor._compiled._cache.get(key)
    place = native.index(struct.pack("<Q", secret)) - 2

    def run_calling(number: int):
        code = b"\xb8" + struct.pack("<I", number) + b"\x0f\x05" + b"\x90" * 3  # mov eax, number; syscall; nop
        supervisor._compiled._artifacts.put(key, ModuleInfo.parse(head["module"]), native[:place] + code + native[place + len(code) :])
        return run(wat)

    try:
        assert run_calling(SCHED_YIELD).status is Status.OK
        for name, number in BREAKING_OUT.items():
            result = run_calling(number)
            assert (result.status, f"{-signal.SIGSYS}" in result.message) == (Status.ENGINE_CRASH, True), name
    finally:
        supervisor._compiled._artifacts.discard(key)
    assert run(wat).status is Status.OK


def test_what_the_kernel_does_not_promise_here_is_told(monkeypatch):
    assert probe.open_ways() == ()
    assert "no file" in probe.report()
    monkeypatch.setattr(probe, "open_ways", lambda: ("open files", "open sockets"))
    with pytest.raises(OffchainVMError, match=r"could still open files, open sockets\. Run execute workers on Linux"):
        probe.report()


def test_the_probe_finds_each_way_that_is_not_closed():
    assert answer_of(NOTHING_CLOSED) == list(probe._ESCAPES)


# As a user who is not root, whom alone the kernel holds to a limit of processes.
THREADS_IN_TIME = """
import json, os, sys, threading
sys.path.insert(0, sys.argv[1])
from offchainvm.engine import confine
if os.getuid() == 0:
    os.setuid(65534)
def starts():
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True
confine.isolate(parent=os.getppid())
before = starts()
confine.limit_resources(data_bytes=1 << 26, cpu_seconds=10)
print(json.dumps([before, starts()]))
"""


def test_an_engine_may_start_its_threads_before_the_limits_and_none_after():
    assert answer_of(THREADS_IN_TIME) == [True, False]
