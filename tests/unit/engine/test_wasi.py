"""The host functions, on a memory that is a bytearray: any engine's."""

from __future__ import annotations

import struct
import time

import pytest
import wasmtime

from offchainvm.engine.wasi import (
    BADF,
    FAULT,
    INVAL,
    NOSYS,
    SIGNATURES,
    SUCCESS,
    WASI_MODULE,
    BadPointer,
    DeadlinePassed,
    GuestExit,
    OutOfInstructions,
    OutputLimit,
    Wasi,
)


class Memory:
    def __init__(self) -> None:
        self.data = bytearray(65536)

    def read(self, pointer: int, size: int) -> bytes:
        if pointer + size > len(self.data):
            raise BadPointer
        return bytes(self.data[pointer : pointer + size])

    def write(self, pointer: int, data: bytes) -> None:
        self.read(pointer, len(data))
        self.data[pointer : pointer + len(data)] = data


class Counter:
    def __init__(self) -> None:
        self.left = 1_000_000

    def charge(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise OutOfInstructions


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def make(memory, counter):
    def call(**given) -> Wasi:
        options = {"stdin": b"", "environment": {}, "output_bytes": 10, "stderr_bytes": 4, "deadline": time.monotonic() + 60}
        return Wasi(memory=memory, charge=counter.charge, **{**options, **given})

    return call


def vectors(memory: Memory, *texts: bytes) -> tuple[int, int]:
    place = 1000
    for number, text in enumerate(texts):
        memory.write(place, text)
        memory.write(100 + 8 * number, struct.pack("<II", place, len(text)))
        place += len(text)
    return 100, len(texts)


def test_every_function_answers_without_a_surprise(make):
    for name, signature in SIGNATURES.items():
        arguments = tuple(0xFFFFFFFF for _ in signature.params)
        if name == "proc_exit":
            with pytest.raises(GuestExit):
                make().function(name)(arguments)
        else:
            assert make().function(name)(arguments) in (SUCCESS, BADF, FAULT, INVAL, NOSYS, 70), name


def test_writes_are_collected_in_order_and_charged_by_byte(make, memory, counter):
    wasi = make()
    assert wasi.function("fd_write")((1, *vectors(memory, b"ab", b"", b"cd"), 0)) == SUCCESS
    assert (bytes(wasi.stdout), memory.read(0, 4), 1_000_000 - counter.left) == (b"abcd", b"\4\0\0\0", 4)


def test_stdout_beyond_its_limit_ends_the_guest_and_keeps_what_fits(make, memory):
    wasi = make()
    with pytest.raises(OutputLimit):
        wasi.function("fd_write")((1, *vectors(memory, b"0123456789X"), 0))
    assert (bytes(wasi.stdout), wasi.stdout_truncated) == (b"0123456789", True)


def test_stderr_beyond_its_limit_is_dropped(make, memory):
    wasi = make()
    assert wasi.function("fd_write")((2, *vectors(memory, b"0123456789"), 0)) == SUCCESS
    assert (bytes(wasi.stderr), wasi.stderr_truncated, memory.read(0, 4)) == (b"0123", True, b"\x0a\0\0\0")


def test_without_an_output_limit_stdout_goes_to_stderr(make, memory):
    wasi = make(output_bytes=None)
    wasi.function("fd_write")((1, *vectors(memory, b"ab"), 0))
    assert (bytes(wasi.stdout), bytes(wasi.stderr)) == (b"", b"ab")


def test_stdin_is_read_to_its_end(make, memory):
    wasi = make(stdin=b"abcdef")
    place, count = vectors(memory, b"    ")
    sizes = []
    for _ in range(3):
        assert wasi.function("fd_read")((0, place, count, 0)) == SUCCESS
        sizes.append(struct.unpack("<I", memory.read(0, 4))[0])
    assert (sizes, memory.read(1000, 4)) == ([4, 2, 0], b"efcd")


def test_a_closed_stream_is_gone(make, memory):
    wasi = make()
    assert wasi.function("fd_close")((1,)) == SUCCESS
    assert wasi.function("fd_close")((1,)) == BADF
    assert wasi.function("fd_write")((1, *vectors(memory, b"x"), 0)) == BADF


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fd_write", (1, 65535, 1, 0)),
        ("fd_read", (0, 65535, 1, 0)),
        ("random_get", (65535, 2)),
        ("random_get", (0xFFFFFFFF, 1)),
        ("clock_time_get", (0, 0, 65530)),
        ("args_sizes_get", (65535, 0)),
        ("poll_oneoff", (65535, 0, 1, 0)),
    ],
)
def test_pointers_outside_memory_are_a_fault(make, name, arguments):
    assert make(stdin=b"abc").function(name)(arguments) == FAULT


def test_a_vector_that_leaves_memory_is_a_fault_and_writes_nothing(make, memory):
    memory.write(100, struct.pack("<II", 65000, 5000))
    wasi = make()
    assert wasi.function("fd_write")((2, 100, 1, 0)) == FAULT
    assert wasi.stderr == b""


def test_host_work_is_paid_before_it_is_done(make, memory, counter):
    counter.left = 100
    with pytest.raises(OutOfInstructions):
        make().function("random_get")((0, 60000))
    assert memory.data == bytes(65536)


def test_random_bytes_are_written_exactly_where_asked(make, memory):
    assert make().function("random_get")((100, 5000)) == SUCCESS
    assert memory.read(0, 100) == bytes(100)
    assert len(set(memory.read(100, 5000))) > 200
    assert memory.read(5100, 100) == bytes(100)


def test_a_long_sleep_ends_at_the_deadline(make, memory):
    memory.write(0, struct.pack("<QB7xIxxxxQQHxxxxxx", 7, 0, 1, 10**15, 0, 0))
    with pytest.raises(DeadlinePassed):
        make(deadline=time.monotonic() + 0.01).function("poll_oneoff")((0, 100, 1, 200))


def test_the_earliest_clock_wakes(make, memory):
    for number, nanoseconds in enumerate((10**15, 10**6)):
        memory.write(48 * number, struct.pack("<QB7xIxxxxQQHxxxxxx", number, 0, 1, nanoseconds, 0, 0))
    assert make().function("poll_oneoff")((0, 200, 2, 300)) == SUCCESS
    assert struct.unpack("<QHB", memory.read(200, 11)) == (1, 0, 0)
    assert memory.read(300, 4) == b"\1\0\0\0"


def test_streams_are_ready_at_once(make, memory):
    memory.write(0, struct.pack("<QB7xIxxxxQQHxxxxxx", 7, 1, 0, 0, 0, 0))
    memory.write(48, struct.pack("<QB7xIxxxxQQHxxxxxx", 8, 0, 1, 10**15, 0, 0))
    assert make().function("poll_oneoff")((0, 200, 2, 300)) == SUCCESS
    assert struct.unpack("<QHB", memory.read(200, 11)) == (7, 0, 1)


def test_all_46_functions_of_preview_1_are_offered_with_the_types_of_wasmtimes_own() -> None:
    assert len(SIGNATURES) == 46
    engine = wasmtime.Engine()
    linker, store = wasmtime.Linker(engine), wasmtime.Store(engine)
    linker.define_wasi()
    for name, signature in SIGNATURES.items():
        found = linker.get(store, WASI_MODULE, name)
        assert isinstance(found, wasmtime.Func), name
        kind = found.type(store)
        assert (tuple(map(str, kind.params)), tuple(map(str, kind.results))) == (signature.params, signature.results), name
