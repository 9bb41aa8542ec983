"""Repositories that aim at cargo: by its configuration, by manifests and lock files, and by what they leave for the next."""

from __future__ import annotations

from pathlib import Path

import pytest
from builds import EVIL, LIBRARY, PACKAGE, UNTOUCHED, Build, Publish, Refused
from mirror import Mirror

CONFIGURED = """
include = ["/src/evil.toml", "evil.toml"]
paths = ["/src/elsewhere"]
[alias]
build = ["run", "--release"]
[build]
rustc = "/src/evil.sh"
rustc-wrapper = "/src/evil.sh"
rustc-workspace-wrapper = "/src/evil.sh"
rustdoc = "/src/evil.sh"
rustflags = ["-C", "linker=/src/evil.sh"]
target-dir = "/src/elsewhere"
[credential-alias]
evil = ["/src/evil.sh"]
[env]
WAS_OBEYED = { value = "yes", force = true }
[registry]
global-credential-providers = ["/src/evil.sh"]
[source.crates-io]
replace-with = "evil"
[source.evil]
directory = "vendor"
[target.wasm32-unknown-unknown]
linker = "/src/evil.sh"
runner = "/src/evil.sh"
[target.'cfg(all())']
linker = "/src/evil.sh"
runner = "/src/evil.sh"
"""


def test_what_a_repository_configures_for_cargo_is_not_obeyed(build: Build, publish: Publish) -> None:
    """In any phase, that which makes a lock file included; wherever cargo might look for its configuration."""
    places = (".cargo/config.toml", ".cargo/config", "src/.cargo/config.toml", "home/.cargo/config.toml", "config.toml", "evil.toml")
    files = {
        **dict.fromkeys(places, CONFIGURED),
        "evil.sh": EVIL,
        "rust-toolchain.toml": '[toolchain]\nchannel = "nightly-1999-01-01"\n',
        "rust-toolchain": "nightly-1999-01-01\n",
        "build.rs": UNTOUCHED.replace("fn main() {", 'fn main() {\n    assert!(std::env::var("WAS_OBEYED").is_err());'),
    }

    assert build(publish(files, without=("Cargo.lock",))).size > 0


HELPER = {"helper/Cargo.toml": '[package]\nname = "helper"\nversion = "1.0.0"\n', "helper/src/lib.rs": ""}
OTHER_REGISTRY = 'version = 3\n[[package]]\nname = "x"\nversion = "1.0.0"\nsource = "registry+https://registry.invalid/index"\n'


def manifest(dependency: str) -> dict[str, str]:
    return {"Cargo.toml": f"{LIBRARY}[dependencies]\n{dependency}\n"}


@pytest.mark.parametrize(
    ("code", "files", "without"),
    [
        pytest.param("manifest_missing", {}, ("Cargo.toml",), id="no-manifest"),
        pytest.param("manifest_invalid", {"Cargo.toml": "[package\n"}, (), id="broken-manifest"),
        pytest.param("manifest_invalid", {"Cargo.toml": Path("/etc/passwd")}, (), id="linked-manifest"),
        pytest.param("manifest_invalid", manifest('x = { path = "../../etc" }'), (), id="path-outside"),
        pytest.param(
            "manifest_invalid", {"Cargo.toml": f'{LIBRARY}[patch.crates-io]\nx = {{ path = "../../conf" }}\n'}, (), id="patch-outside"
        ),
        pytest.param("manifest_invalid", {"Cargo.toml": f'{PACKAGE}members = ["../../tmp"]\n'}, (), id="member-outside"),
        pytest.param("no_artifact", {"Cargo.toml": LIBRARY.replace("cdylib", "rlib")}, (), id="no-module"),
        pytest.param(
            "ambiguous_artifact",
            {"Cargo.toml": PACKAGE, "src/bin/a.rs": "fn main(){}", "src/bin/b.rs": "fn main(){}"},
            ("src/lib.rs",),
            id="two-modules",
        ),
        pytest.param("compile_error", {"src/lib.rs": 'pub fn execute() -> i32 { "no" }'}, (), id="type-error"),
        pytest.param("artifact_invalid", {"src/lib.rs": "pub fn nothing() {}"}, (), id="no-entry-point"),
        pytest.param("manifest_invalid", {"Cargo.lock": "version = 9\n"}, (), id="lock-of-the-future"),
        pytest.param("unsupported_source", {"Cargo.lock": OTHER_REGISTRY}, (), id="lock-names-another-registry"),
        pytest.param("unsupported_source", manifest('x = { git = "https://git.invalid/x/y" }'), ("Cargo.lock",), id="git-elsewhere"),
        pytest.param("unsupported_source", manifest('x = { git = "https://github.com/..%2F..%2Fx/y" }'), ("Cargo.lock",), id="git-climbs"),
    ],
)
def test_a_repository_that_cannot_be_built_says_why(
    refused: Refused, publish: Publish, code: str, files: dict[str, str | Path], without: tuple[str, ...]
) -> None:
    assert refused(publish(files, without=without)).code == code


@pytest.mark.parametrize("written_in", ["patch", "path-dependency", "array"])
def test_no_manifest_leads_cargo_to_another_registry(refused: Refused, publish: Publish, site: Mirror, written_in: str) -> None:
    """Cargo itself would ask it, and quote its answer: for none of these does it tell of it beforehand."""
    other = f'x = {{ version = "1", registry-index = "sparse+http://{site.address}/other/" }}'
    helper = HELPER["helper/Cargo.toml"]
    excluded = {**manifest('helper = { path = "helper" }'), **HELPER, "helper/Cargo.toml": f"{helper}[dependencies]\n{other}\n"}
    excluded["Cargo.toml"] = excluded["Cargo.toml"].replace("[workspace]", '[workspace]\nexclude = ["helper"]')
    files = {
        "patch": {"Cargo.toml": f"{LIBRARY}[patch.crates-io]\n{other}\n"},
        "path-dependency": excluded,
        "array": {"Cargo.toml": f"{LIBRARY}[target]\n'cfg(all())' = [{{ {other} }}, {{}}, {{}}, {{}}, {{}}]\n"},
    }[written_in]

    error = refused(publish(files, without=("Cargo.lock",)))

    assert error.code == "unsupported_source"
    assert site.address in error.sentence
    assert not site.requests


def test_an_outdated_lock_file_is_refused_with_the_way_to_mend_it(refused: Refused, publish: Publish) -> None:
    error = refused(publish({**manifest('helper = { path = "helper" }'), **HELPER}))

    assert error.code == "lockfile_outdated"
    assert "cargo update --workspace" in error.remedy
    assert "Cargo.lock" in error.log_tail or "lock file" in error.log_tail


def test_a_required_lock_file_is_missed_before_anything_is_fetched(refused: Refused, publish: Publish) -> None:
    assert refused(publish(without=("Cargo.lock",)), require_lockfile=True).code == "lockfile_missing"


POISON = """
fn main() {
    let config = "[build]\\nrustc-wrapper = \\"/build/evil.sh\\"\\n";
    let target = "/build/target/wasm32-unknown-unknown/release/guest.wasm";
    let mut written = 0;
    let home = ["/build", "/build/home", "/build/home/.cargo", "/build/target"];
    for folder in home.into_iter().chain(["/cargo", "/cargo/registry", "/src", "/conf", "/out", "/tmp"]) {
        let _ = std::fs::create_dir_all(folder);
        for name in ["was-run", "config.toml", "config", "credentials.toml"] {
            written += std::fs::write(format!("{folder}/{name}"), config).is_ok() as usize;
        }
    }
    let _ = std::fs::create_dir_all(std::path::Path::new(target).parent().unwrap());
    let _ = std::fs::write(target, b"poison");
    assert!(written >= 4, "{written}");
}
"""


def test_one_tenant_leaves_nothing_for_the_next(build: Build, publish: Publish) -> None:
    build(publish({"build.rs": POISON}))

    assert build(publish({"build.rs": UNTOUCHED})).size > 0
