"""Cargo.lock as data: every version of it, and every way to hide something in it."""

from __future__ import annotations

import pytest

from offchainvm.compiler.lockfile import Crate, read_lockfile
from offchainvm.errors import BuildError

SHA256 = "0123456789abcdef" * 4
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
ITOA = Crate("itoa", "1.0.0", SHA256)
PACKAGE = f'[[package]]\nname = "itoa"\nversion = "1.0.0"\nsource = "{CRATES_IO}"\n'


@pytest.mark.parametrize(
    "text",
    [
        f'version = 4\n{PACKAGE}checksum = "{SHA256}"\n',
        f'version = 3\n[[package]]\nname = "own"\nversion = "1.0.0"\n{PACKAGE}checksum = "{SHA256}"\n',
        f'{PACKAGE}[metadata]\n"checksum itoa 1.0.0 ({CRATES_IO})" = "{SHA256}"\n',
    ],
)
def test_every_version_names_the_same_crates(text: str) -> None:
    lockfile = read_lockfile(text)

    assert lockfile.crates == (ITOA,)
    assert not lockfile.needs_git


def test_a_git_dependency_is_no_crate_and_wants_a_network() -> None:
    lockfile = read_lockfile('[[package]]\nname = "x"\nversion = "1.0.0"\nsource = "git+https://github.com/a/b#1"\n')

    assert lockfile.crates == ()
    assert lockfile.needs_git


@pytest.mark.parametrize(
    "key",
    ["source", '"source"', r'"sourc\u0065"'],
)
@pytest.mark.parametrize("quotes", ['"', "'", '"""', "'''"])
def test_another_source_is_seen_however_it_is_written(key: str, quotes: str) -> None:
    with pytest.raises(BuildError, match="unsupported_source"):
        read_lockfile(f'[[package]]\nname = "x"\nversion = "1.0.0"\n{key} = {quotes}registry+https://other.example/{quotes}\n')


@pytest.mark.parametrize(
    "text",
    [
        "[[package",
        "package = 3",
        'package = ["x"]',
        "x = " + "[" * 10_000,
        ".".join("a" * 5_000) + " = 1",
        "[" + " . ".join(['"a\\""'] * 5_000) + "]",
        PACKAGE,
        f'{PACKAGE}checksum = "0"\n',
        f"{PACKAGE}checksum = 7\n",
        f'{PACKAGE.replace("itoa", "-itoa")}checksum = "{SHA256}"\n',
        f'{PACKAGE.replace("itoa", "../itoa")}checksum = "{SHA256}"\n',
        f'{PACKAGE.replace("1.0.0", "1.0.0/../..")}checksum = "{SHA256}"\n',
        '[[package]]\nname = "x"\nsource = 3\n',
        '[[package]]\nname = "x"\n' * 5001,
    ],
)
def test_what_cargo_would_not_have_written_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match="manifest_invalid"):
        read_lockfile(text)
