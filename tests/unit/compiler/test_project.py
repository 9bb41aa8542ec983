"""What is in a repository, judged from listings and descriptions that strangers can shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.project import read_project, read_tree
from offchainvm.errors import BuildError

BLOB = "a" * 40


def listing(*rows: tuple[str, str]) -> bytes:
    return b"".join(f"{mode} blob {BLOB}      10\t{path}\0".encode() for mode, path in rows)


def metadata(*packages: dict[str, Any], root: str = "/src") -> bytes:
    return json.dumps({"packages": packages, "workspace_root": root, "workspace_members": [item["id"] for item in packages]}).encode()


def package(
    name: str = "guest", path: str = "/src/Cargo.toml", *, lib: bool = False, bins: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    targets = [{"kind": ["cdylib"], "crate_types": ["cdylib"], "name": f"{name}-lib"}] if lib else []
    targets += [{"kind": ["bin"], "crate_types": ["bin"], "name": item} for item in bins]
    targets += [{"kind": ["custom-build"], "crate_types": ["bin"], "name": "build-script-build"}]
    return {"id": name, "name": name, "manifest_path": path, "dependencies": [], "targets": targets, **more}


def test_a_tree_tells_its_size_and_its_lock_file() -> None:
    tree = read_tree(listing(("100644", "Cargo.toml"), ("100644", "Cargo.lock"), ("120000", "link")), BuildLimits())

    assert tree.has_lockfile
    assert tree.size_bytes == 30


@pytest.mark.parametrize("path", ["Cargo.toml", "Cargo.lock", "crates/a/Cargo.toml"])
def test_a_manifest_that_is_a_link_is_refused(path: str) -> None:
    with pytest.raises(BuildError, match="manifest_invalid"):
        read_tree(listing(("100644", "Cargo.toml"), ("120000", path)), BuildLimits())


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", ".git/hooks/post-checkout", "a/.GIT/config", "..", ".", "a//b"])
def test_a_file_outside_the_repository_is_refused(path: str) -> None:
    with pytest.raises(BuildError, match="unsupported_source"):
        read_tree(listing(("100644", "Cargo.toml"), ("100644", path)), BuildLimits())


@pytest.mark.parametrize("path", [".github/x", "a/.gitignore", "..x", "x..", "a/...b"])
def test_a_name_that_only_looks_like_one_outside_is_taken(path: str) -> None:
    assert path in read_tree(listing(("100644", "Cargo.toml"), ("100644", path)), BuildLimits()).paths


@pytest.mark.parametrize(
    ("paths", "root"),
    [
        (["Cargo.toml", "guest/Cargo.toml"], "/src"),
        (["README.md", "contracts/guest/Cargo.toml"], "/src/contracts/guest"),
        (["a/Cargo.toml", "a/x-y/Cargo.toml", "a/x/Cargo.toml", "a/x/z/Cargo.toml", "a-b/x"], "/src/a"),
        (["code/Cargo.toml", "code/one/Cargo.toml", "code/two/Cargo.toml", "code/one/Cargo.lock"], "/src/code"),
    ],
)
def test_the_outermost_manifest_names_the_project(paths: list[str], root: str) -> None:
    tree = read_tree(listing(*[("100644", path) for path in paths]), BuildLimits())

    assert tree.root == root
    assert not tree.has_lockfile  # only the one beside that manifest counts


@pytest.mark.parametrize("paths", [["a/Cargo.toml", "a-b/Cargo.toml"], ["one/x/Cargo.toml", "one/\x1bx/Cargo.toml", "one/README.md"]])
def test_of_several_projects_below_the_root_none_is_guessed(paths: list[str]) -> None:
    with pytest.raises(BuildError, match="manifest_missing") as caught:
        read_tree(listing(*[("100644", path) for path in paths]), BuildLimits())
    assert "2 below it" in caught.value.sentence
    assert f'"{paths[0].removesuffix("/Cargo.toml")}"' in caught.value.remedy
    assert caught.value.remedy.isprintable()


def test_too_many_files_are_refused() -> None:
    with pytest.raises(BuildError, match="repo_too_large"):
        read_tree(listing(*[("100644", f"{number}") for number in range(11)]), BuildLimits(source_files=10))


def test_a_submodule_is_counted_and_no_manifest_is_taken_from_it() -> None:
    rows = f"160000 commit {BLOB}       -\tCargo.toml\0".encode()

    with pytest.raises(BuildError, match="manifest_missing"):
        read_tree(rows, BuildLimits())


def test_a_cdylib_is_named_with_underscores_and_a_binary_is_not() -> None:
    both = metadata(package("my-guest", lib=True, bins=("my-guest",)))

    assert read_project(both, target="wasm32-unknown-unknown").file_name == "my_guest_lib.wasm"
    assert read_project(both, target="wasm32-wasip1").file_name == "my-guest.wasm"
    assert read_project(both, target="wasm32-wasip1").cargo_arguments == ("--manifest-path", "/src/Cargo.toml", "--bin", "my-guest")


@pytest.mark.parametrize("chosen", [{"default_run": "b"}, {"name": "b"}])
def test_of_several_binaries_the_default_one_is_built(chosen: dict[str, str]) -> None:
    text = metadata({**package(bins=("a", "b")), **chosen})

    assert read_project(text, target="wasm32-wasip1").name == "b"


@pytest.mark.parametrize("root", ["/src", "/src/code"])
def test_the_root_package_comes_before_the_other_members(root: str) -> None:
    text = metadata(package("root", f"{root}/Cargo.toml", lib=True), package("member", f"{root}/member/Cargo.toml", lib=True), root=root)

    assert read_project(text, target="wasm32-wasip1", root=root).package == "root"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "manifest_invalid"),
        (b"[]", "manifest_invalid"),
        (b'{"packages": [1], "workspace_root": "/src"}', "manifest_invalid"),
        (metadata(package(lib=True), root="/"), "manifest_invalid"),
        (metadata(package(path="/etc/Cargo.toml", lib=True)), "manifest_invalid"),
        (metadata(package(bins=("../../x",))), "manifest_invalid"),
        (metadata(package(lib=True, dependencies=[{"name": "x", "path": "/src/../etc", "source": None}])), "manifest_invalid"),
        (metadata(package(lib=True, dependencies=[{"name": "x", "path": "/srcery", "source": None}])), "manifest_invalid"),
        (metadata(package(lib=True, dependencies=[{"name": "x", "source": "registry+https://other.example/"}])), "unsupported_source"),
        (b'{"packages": ' + b"[" * 100_000, "manifest_invalid"),
        (metadata(package()), "no_artifact"),
        (metadata(package(bins=("a", "b"))), "ambiguous_artifact"),
        (metadata(package("a", "/src/a/Cargo.toml", lib=True), package("b", "/src/b/Cargo.toml", lib=True)), "ambiguous_artifact"),
    ],
)
def test_a_description_that_does_not_name_one_module_is_refused(text: bytes, code: str) -> None:
    with pytest.raises(BuildError, match=code):
        read_project(text, target="wasm32-wasip1")
