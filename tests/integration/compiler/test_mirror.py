"""The networked phases against a mirror of this host, over a network that leads nowhere else; and the mirror's faults."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mirror import SECRET, Mirror, make_crate
from tls import Certificate, make_certificate

from offchainvm.compiler import crates
from offchainvm.compiler.base import BuildEvent, BuildRequest, BuiltModule
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.limits import BuildLimits
from offchainvm.compiler.provenance import read_claim
from offchainvm.compiler.source import Resolver, parse_source
from offchainvm.errors import BuildError, Unavailable
from offchainvm.models import CodeSource
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient

LIMITS = BuildLimits(timeout_seconds=60, memory_mb=512, disk_mb=128, source_mb=16, dependencies_mb=64)
HEAD = '[package]\nname = "guest"\nversion = "0.1.0"\nedition = "2021"\n[lib]\ncrate-type = ["cdylib"]\n[workspace]\n'
MANIFEST = f'{HEAD}[profile.release]\nopt-level = 0\n[dependencies]\nanswer = "1"\n'
LIBRARY = '#[no_mangle]\npub extern "C" fn execute(_p: i32, _n: i32) -> i32 { answer::get() }\n'
ANSWER = "pub fn get() -> i32 { 65532 }\n"
# What a build must not find of the way that its sources took. The words are in two halves: this text lies in /src too.
NOTHING_OF_THE_NETWORK = f"""
fn secret() -> String {{ ["{SECRET[:5]}", "{SECRET[5:]}"].concat() }}
fn look(path: &std::path::Path) {{
    let Ok(entries) = std::fs::read_dir(path) else {{
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        assert!(!text.contains(&secret()), "{{path:?}} holds the mirror's login");
        assert!(!text.contains(&["BEGIN ", "CERTIFICATE"].concat()), "{{path:?}} holds certificates");
        return;
    }};
    for entry in entries {{ look(&entry.unwrap().path()); }}
}}
fn main() {{
    for folder in ["/conf", "/net", "/cargo", "/src", "/out", "/tmp", "/proc/self/environ"] {{ look(std::path::Path::new(folder)); }}
    for (name, value) in std::env::vars() {{
        let name = name.to_lowercase();
        assert!(!name.contains("proxy") && !name.contains("cainfo") && !value.starts_with("/net"), "sees {{name}}");
        assert!(!value.contains(&secret()), "{{name}} holds the mirror's login");
    }}
}}
"""
Publish = Callable[..., str]


@pytest.fixture(scope="module")
def network(client: DockerClient) -> Iterator[tuple[str, str]]:
    """An internal network of the engine: its name, and the address of this host in it."""
    made = client.networks.create(f"offchainvm-test-{uuid.uuid4().hex[:8]}", internal=True)
    made.reload()
    yield str(made.name), made.attrs["IPAM"]["Config"][0]["Gateway"]
    made.remove()


@pytest.fixture
def site(network: tuple[str, str], mirror: Path) -> Iterator[Mirror]:
    with Mirror(network[1], mirror) as server:
        yield server


@pytest.fixture
def certificate(network: tuple[str, str], tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, network[1])


@pytest.fixture
def private_site(network: tuple[str, str], mirror: Path, certificate: Certificate) -> Iterator[Mirror]:
    """The same over HTTPS, with a certificate of the site's own authority."""
    with Mirror(network[1], mirror, tls=certificate.server_context) as server:
        yield server


@pytest.fixture
def make(state_dir: Path, owner: str, network: tuple[str, str], site: Mirror, tmp_path: Path) -> Callable[..., BuiltModule]:
    """Build ``someone/guest`` through the mirror, each time with a builder of its own; the folder of state is this test's."""
    (tmp_path / "state2").mkdir()
    (tmp_path / "state2" / "builder-image.json").write_bytes((state_dir / "builder-image.json").read_bytes())

    def run(commit_sha: str, *, limits: BuildLimits = LIMITS, lockfile: str = "", **given: object) -> BuiltModule:
        options = {"mirror_url": site.git_url, "crates_mirror_url": site.index_url, "network": network[0], **given}
        on_event = options.pop("on_event", lambda event: None)
        image = load_only(["builder_image"]).builder_image
        source = parse_source(CodeSource(repo="someone/guest", commit=commit_sha, build_target="wasm32-unknown-unknown"))
        with SandboxBuilder(image=image, state_dir=tmp_path / "state2", owner=owner, **options) as builder:  # type: ignore[arg-type]
            return builder.build(BuildRequest(source, commit_sha, limits, lockfile=lockfile), on_event=on_event)  # type: ignore[arg-type]

    return run


Make = Callable[..., BuiltModule]


def locked(checksum: str) -> str:
    source = 'source = "registry+https://github.com/rust-lang/crates.io-index"'
    return (
        f'version = 3\n\n[[package]]\nname = "answer"\nversion = "1.0.0"\n{source}\nchecksum = "{checksum}"\n\n'
        '[[package]]\nname = "guest"\nversion = "0.1.0"\ndependencies = [\n "answer",\n]\n'
    )


def publish_with_git_dependency(publish: Publish) -> str:
    """A guest without a lock file that needs a crate and another repository, and looks around while it is built; its commit."""
    publish({"Cargo.toml": '[package]\nname = "helper"\nversion = "0.1.0"\n', "src/lib.rs": "pub fn one() -> i32 { 1 }\n"}, name="helper")
    manifest = f'{MANIFEST}helper = {{ git = "https://github.com/someone/helper" }}\n'
    library = LIBRARY.replace("answer::get()", "answer::get() + helper::one() - 1")
    files = {"Cargo.toml": manifest, "src/lib.rs": library, "build.rs": NOTHING_OF_THE_NETWORK}
    return publish(files, without=("Cargo.lock",))


def test_a_build_through_a_mirror_needs_nothing_else_and_its_login_stays_outside(make: Make, publish: Publish, site: Mirror) -> None:
    """Clone, a lock file that the resolver makes, a crate, a git dependency: all of it with a login, of which the build sees nothing."""
    site.publish("answer", "1.0.0", ANSWER)
    publish_with_git_dependency(publish)
    events = list[BuildEvent]()
    source = parse_source(CodeSource(repo="someone/guest", commit="main"), mirror_url=site.git_url)

    built = make(Resolver().resolve(source), on_event=events.append)

    lockfile = built.provenance["predicate"]["buildDefinition"]["internalParameters"]["lockfile"]["content"]
    assert "git+https://github.com/someone/helper#" in lockfile
    assert "registry+https://github.com/rust-lang/crates.io-index" in lockfile
    assert "/crates/answer/1.0.0/download" in site.requests
    assert built.log_path is not None
    assert SECRET not in "".join(event.text for event in events) + built.log_path.read_text() + str(built.provenance)


def test_a_crate_is_fetched_once_and_a_poisoned_copy_is_never_used(make: Make, publish: Publish, site: Mirror, tmp_path: Path) -> None:
    checksum = site.publish("answer", "1.0.0", ANSWER)
    files = {"Cargo.toml": MANIFEST, "src/lib.rs": LIBRARY, "Cargo.lock": locked(checksum)}
    commit_sha = publish(files)
    first = make(commit_sha)
    cached = tmp_path / "state2" / crates.FOLDER / checksum
    assert cached.read_bytes() == site.crates["answer", "1.0.0"]

    site.requests.clear()
    second = make(commit_sha)
    assert not [path for path in site.requests if not path.startswith("/git/")]

    evil = Mirror.publish(site, "evil", "1.0.0", "pub fn get() -> i32 { 0 }\n")
    cached.write_bytes(site.crates["evil", "1.0.0"])
    assert evil != checksum
    third = make(commit_sha)

    assert first.wasm == second.wasm == third.wasm
    assert cached.read_bytes() == site.crates["answer", "1.0.0"]


def test_a_rebuild_takes_the_crates_of_its_provenance_whatever_came_out_since(make: Make, publish: Publish, site: Mirror) -> None:
    site.publish("answer", "1.0.0", ANSWER)
    commit_sha = publish({"Cargo.toml": MANIFEST, "src/lib.rs": LIBRARY}, without=("Cargo.lock",))
    first = make(commit_sha)
    site.publish("answer", "1.1.0", ANSWER.replace("65532", "0"))

    claim = read_claim(json.dumps(first.provenance).encode())

    assert make(commit_sha, lockfile=claim.lockfile).sha256 == claim.sha256
    assert make(commit_sha).sha256 != claim.sha256


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param(("/crates/", "404"), ("dependency_not_found", "answer-1.0.0"), id="crate-absent"),
        pytest.param(("/crates/", "500"), ("fetch_network", "500"), id="registry-broken"),
        pytest.param(("/index/", "401"), ("fetch_network", "401"), id="registry-wants-a-login"),
        pytest.param(("/crates/", "drip"), ("timeout", "fetching crates"), id="registry-drips"),
        pytest.param(("/git/", "404"), ("repo_not_found", "someone/guest"), id="repository-absent"),
        pytest.param(("/git/", "401"), ("repo_not_found", "someone/guest"), id="repository-private"),
        pytest.param(("/git/", "502"), ("fetch_network", "someone/guest"), id="git-broken"),
        pytest.param(("/git/", "hang"), ("timeout", "getting the source"), id="git-hangs"),
    ],
)
def test_a_fault_of_the_mirror_has_a_code(
    make: Make, publish: Publish, site: Mirror, fault: tuple[str, str], expected: tuple[str, str]
) -> None:
    code, said = expected
    commit_sha = publish({"Cargo.toml": MANIFEST, "Cargo.lock": locked(site.publish("answer", "1.0.0", ANSWER)), "src/lib.rs": LIBRARY})
    site.faults = dict([fault])

    with pytest.raises(BuildError) as caught:
        make(commit_sha, limits=replace(LIMITS, timeout_seconds=5) if code == "timeout" else LIMITS)

    assert caught.value.code == code
    assert said in caught.value.sentence
    assert SECRET not in caught.value.sentence + caught.value.log_tail


def test_what_the_registry_does_not_give_as_locked_is_not_built(make: Make, publish: Publish, site: Mirror) -> None:
    checksum = site.publish("answer", "1.0.0", ANSWER)
    commit_sha = publish({"Cargo.toml": MANIFEST, "Cargo.lock": locked(checksum), "src/lib.rs": LIBRARY})
    site.publish("answer", "1.0.0", "pub fn get() -> i32 { 0 }\n")

    with pytest.raises(BuildError) as caught:
        make(commit_sha)
    assert caught.value.code == "dependency_not_found"
    assert "checksum" in caught.value.sentence

    with pytest.raises(BuildError, match="commit_not_found"):
        make("0123456789" * 4)
    with pytest.raises(BuildError, match="fetch_network"):
        make(commit_sha, crates_mirror_url="http://127.0.0.1:1/index/")


@pytest.mark.parametrize(
    ("links", "evil"),
    [pytest.param({}, "../../config.toml", id="by-its-name"), pytest.param({"up": "../.."}, "up/config.toml", id="through-a-link")],
)
def test_a_crate_that_unpacks_outside_its_folder_is_refused(
    make: Make, publish: Publish, site: Mirror, links: dict[str, str], evil: str
) -> None:
    crate = make_crate("answer", "1.0.0", {"src/lib.rs": ANSWER, evil: '[build]\nrustc = "/evil"\n'}, links=links)
    site.crates["answer", "1.0.0"] = crate
    commit_sha = publish({"Cargo.toml": MANIFEST, "Cargo.lock": locked(hashlib.sha256(crate).hexdigest()), "src/lib.rs": LIBRARY})

    with pytest.raises(BuildError) as caught:
        make(commit_sha)

    assert (caught.value.code, caught.value.sentence) == ("dependency_not_found", "A crate of the registry cannot be unpacked.")


def test_neither_repository_nor_crate_says_which_crate_is_built(make: Make, publish: Publish, site: Mirror) -> None:
    """The repository would replace the registry by a folder of its own; the crate, cargo's configuration by its checksums."""
    crate = make_crate("answer", "1.0.0", {"src/lib.rs": ANSWER}, links={".cargo-checksum.json": "../../config.toml"})
    site.crates["answer", "1.0.0"] = crate
    files = {
        ".cargo/config.toml": '[source.crates-io]\nreplace-with = "evil"\n[source.evil]\ndirectory = "/src/vendor"\n',
        "vendor/answer/Cargo.toml": '[package]\nname = "answer"\nversion = "1.0.0"\n',
        "vendor/answer/.cargo-checksum.json": '{"files":{}}',
        "vendor/answer/src/lib.rs": 'compile_error!("this is not the registry\'s crate");\n',
    }
    lockfile = locked(hashlib.sha256(crate).hexdigest())

    assert make(publish({"Cargo.toml": MANIFEST, "Cargo.lock": lockfile, "src/lib.rs": LIBRARY, **files})).size > 0


def test_what_the_resolver_says_of_the_index_is_told_without_its_login(make: Make, publish: Publish, site: Mirror) -> None:
    site.faults = {"/index/": "418"}

    with pytest.raises(BuildError) as caught:
        make(publish({"Cargo.toml": MANIFEST}, without=("Cargo.lock",)))

    assert caught.value.code in {"dependency_not_found", "fetch_network"}
    assert "418" in caught.value.log_tail
    assert "/index/" in caught.value.log_tail
    assert SECRET not in caught.value.log_tail + caught.value.sentence


def test_a_network_that_is_gone_or_the_hosts_own_is_refused_with_its_setting(
    client: DockerClient, make: Make, publish: Publish, state_dir: Path, owner: str
) -> None:
    """At the worker's start, whatever name leads to it, and for a job that comes when it was taken away: such a job waits."""
    for network in ("no-such-network", "host", str(client.networks.get("host").id), "none"):
        builder = SandboxBuilder(image=load_only(["builder_image"]).builder_image, state_dir=state_dir, owner=owner, network=network)
        with pytest.raises(Unavailable, match="BUILD_NETWORK"):
            builder.check()
    with pytest.raises(Unavailable, match=r"no-such-network not found.*BUILD_NETWORK"):
        make(publish(), network="no-such-network")


def test_proxy_and_authorities_are_for_the_networked_phases_alone(
    make: Make, publish: Publish, site: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror's name resolves nowhere: only the proxy knows the way."""
    site.publish("answer", "1.0.0", ANSWER)
    files = {"Cargo.toml": MANIFEST, "src/lib.rs": LIBRARY, "build.rs": NOTHING_OF_THE_NETWORK}
    commit_sha = publish(files, without=("Cargo.lock",))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://{site.address}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    make(commit_sha, mirror_url="http://mirror.invalid/git", crates_mirror_url="http://mirror.invalid/index/")

    assert site.requests
    assert all(path.startswith("proxy:") for path in site.requests)
    assert {"proxy:/index/an/sw/answer", "proxy:/crates/answer/1.0.0/download"} <= set(site.requests)


def test_a_mirror_of_a_private_authority_is_reached_by_its_certificate_alone(
    make: Make, publish: Publish, private_site: Mirror, certificate: Certificate
) -> None:
    """The branch on the host, the clone, the index, the crate and the git dependency: all over TLS. The build script sees none of it."""
    private_site.publish("answer", "1.0.0", ANSWER)
    commit_sha = publish_with_git_dependency(publish)
    source = parse_source(CodeSource(repo="someone/guest", commit="main"), mirror_url=private_site.git_url)
    way = {"mirror_url": private_site.git_url, "crates_mirror_url": private_site.index_url}

    assert Resolver(ca_bundle=certificate.authority).resolve(source) == commit_sha
    make(commit_sha, **way, ca_bundle=certificate.authority)
    assert {"/index/an/sw/answer", "/crates/answer/1.0.0/download", "/git/someone/helper/info/refs"} <= set(private_site.requests)

    with pytest.raises(BuildError, match="CA_BUNDLE"):
        Resolver().resolve(source)


@pytest.mark.parametrize("phase", ["source", "lock", "crates"])
def test_a_certificate_that_is_not_trusted_is_told_with_the_setting(make: Make, publish: Publish, private_site: Mirror, phase: str) -> None:
    checksum = private_site.publish("answer", "1.0.0", ANSWER)
    without = ("Cargo.lock",) if phase == "lock" else ()
    commit_sha = publish({"Cargo.toml": MANIFEST, "Cargo.lock": locked(checksum), "src/lib.rs": LIBRARY}, without=without)
    git_url = private_site.git_url if phase == "source" else f"file://{private_site.repositories}"

    with pytest.raises(BuildError) as caught:
        make(commit_sha, mirror_url=git_url, crates_mirror_url=private_site.index_url)

    assert caught.value.code == "fetch_network"
    assert "CA_BUNDLE" in caught.value.sentence
    assert "CA_BUNDLE" in caught.value.remedy
    assert re.search("certificate (signer not trusted|verify failed|problem)", caught.value.log_tail)
    assert not private_site.requests
