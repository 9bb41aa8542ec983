"""Where dependencies come from, in manifests and in what cargo tells of them."""

from __future__ import annotations

import pytest

from offchainvm.compiler.dependencies import check_manifests, check_sources
from offchainvm.errors import BuildError

OTHER = 'x = { version = "1", registry-index = "sparse+https://other.example/" }'


@pytest.mark.parametrize(
    "source",
    [
        "git+https://github.com.evil.example/a/b",
        "git+ssh://git@github.com/a/b",
        "git+https://github.com/..%2F..%2Fprivate/repo?rev=1#1",
        "sparse+https://other.example/",
        "path+file:///x",
    ],
)
def test_another_source_is_refused(source: str) -> None:
    with pytest.raises(BuildError, match="unsupported_source"):
        check_sources([source])


def test_the_registry_and_repositories_on_github_are_taken() -> None:
    check_sources(["registry+https://github.com/rust-lang/crates.io-index", "git+https://github.com/a/b.git?branch=c%2Fd#1"])


@pytest.mark.parametrize(
    "text",
    [
        f"[dependencies]\n{OTHER}\n",
        f"[patch.crates-io]\n{OTHER}\n",
        f"[workspace.dependencies]\n{OTHER}\n",
        f"[target.'cfg(all())'.build-dependencies]\n{OTHER}\n",
        # Cargo takes an array for a table of the same fields.
        f"[target]\n'cfg(all())' = [{{ {OTHER} }}, {{}}, {{}}, {{}}, {{}}]\n",
        '[dependencies.x]\n"registry-\\u0069ndex" = "https://other.example/"\n',
        "\ufeff[dependencies.x]\nregistry-index = 1\n",
        '[dependencies]\nx = { git = "https://git.example/x" }\n',
        '[dependencies]\nx = { git = "https://github.com/..%2F..%2Fprivate/repo" }\n',
        '[replace]\n"x:1.0.0" = { git = "ssh://git@github.com/a/b" }\n',
        # A dependency by the name of what cargo does not read.
        '[dependencies]\nmetadata = { git = "file:///x" }\n',
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match="unsupported_source"):
        check_manifests(["", text])


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[package]\nrepository = "https://git.example/x"\npublish = ["other"]\n[package.metadata.x]\ngit = "https://git.example/x"\n',
        '[dependencies]\ngit = "0.1"\nx = { git = "https://github.com/a/b", branch = "c" }\ny = { path = "y" }\n',
        '[patch."https://github.com/a/b"]\nx = { git = "https://github.com/c/d.git" }\n',
    ],
)
def test_a_usual_manifest_is_taken(text: str) -> None:
    check_manifests([text])


@pytest.mark.parametrize("text", ["[dependencies", "x = " + "[" * 10_000, "[a" + ".a" * 5_000 + "]\n"])
def test_a_manifest_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match="manifest_invalid"):
        check_manifests([text])
