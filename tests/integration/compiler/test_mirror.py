"""The networked phases against a mirror of this host, over a network that leads nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from builds import Build, Publish
from mirror import ANSWER, LIBRARY, MANIFEST, SECRET, Mirror, guest
from tls import Certificate, make_certificate

from offchainvm.compiler.base import BuildEvent
from offchainvm.compiler.build import SandboxBuilder
from offchainvm.compiler.provenance import read_claim
from offchainvm.compiler.source import Resolver, parse_source
from offchainvm.errors import BuildError, Unavailable
from offchainvm.models import CodeSource
from offchainvm.settings import load_only

if TYPE_CHECKING:
    from docker.client import DockerClient

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
NAME = "mirror.invalid"


@pytest.fixture
def certificate(network: tuple[str, str], tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, network[1], NAME)


@pytest.fixture
def private_site(network: tuple[str, str], mirror: Path, certificate: Certificate) -> Iterator[Mirror]:
    """A mirror over HTTPS, with a certificate of the site's own authority."""
    with Mirror(network[1], mirror, tls=certificate.server_context) as server:
        yield server


@pytest.fixture
def proxy(site: Mirror, private_site: Mirror, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """This host's proxy, which leads to the private site by any name."""
    site.behind = private_site
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://{site.address}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return site


def publish_with_git_dependency(publish: Publish) -> str:
    """A guest without a lock file that needs a crate and another repository, and looks around while it is built; its commit."""
    publish({"Cargo.toml": '[package]\nname = "helper"\nversion = "0.1.0"\n', "src/lib.rs": "pub fn one() -> i32 { 1 }\n"}, name="helper")
    manifest = f'{MANIFEST}helper = {{ git = "https://github.com/someone/helper" }}\n'
    library = LIBRARY.replace("answer::get()", "answer::get() + helper::one() - 1")
    files = {"Cargo.toml": manifest, "src/lib.rs": library, "build.rs": NOTHING_OF_THE_NETWORK}
    return publish(files, without=("Cargo.lock",))


def test_a_build_through_a_mirror_needs_nothing_else_and_its_login_stays_outside(make: Build, publish: Publish, site: Mirror) -> None:
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


def test_a_rebuild_takes_the_crates_of_its_provenance_whatever_came_out_since(make: Build, publish: Publish, site: Mirror) -> None:
    site.publish("answer", "1.0.0", ANSWER)
    commit_sha = publish({"Cargo.toml": MANIFEST, "src/lib.rs": LIBRARY}, without=("Cargo.lock",))
    first = make(commit_sha)
    site.publish("answer", "1.1.0", ANSWER.replace("65532", "0"))

    claim = read_claim(json.dumps(first.provenance).encode())

    assert make(commit_sha, lockfile=claim.lockfile).sha256 == claim.sha256
    assert make(commit_sha).sha256 != claim.sha256


def test_what_the_resolver_says_of_the_index_is_told_without_its_login(make: Build, publish: Publish, site: Mirror) -> None:
    site.faults = {"/index/": "418"}

    with pytest.raises(BuildError) as caught:
        make(publish({"Cargo.toml": MANIFEST}, without=("Cargo.lock",)))

    assert caught.value.code in {"dependency_not_found", "fetch_network"}
    assert "418" in caught.value.log_tail
    assert "/index/" in caught.value.log_tail
    assert SECRET not in caught.value.log_tail + caught.value.sentence


def test_a_network_that_is_gone_or_the_hosts_own_is_refused_with_its_setting(
    client: DockerClient, make: Build, publish: Publish, state_dir: Path, owner: str
) -> None:
    """At the worker's start, whatever name leads to it, and for a job that comes when it was taken away: such a job waits."""
    for network in ("no-such-network", "host", str(client.networks.get("host").id), "none"):
        builder = SandboxBuilder(image=load_only(["builder_image"]).builder_image, state_dir=state_dir, owner=owner, network=network)
        with pytest.raises(Unavailable, match="BUILD_NETWORK"):
            builder.check()
    with pytest.raises(Unavailable, match=r"no-such-network not found.*BUILD_NETWORK"):
        make(publish(), network="no-such-network")


def test_proxy_and_authorities_are_for_the_networked_phases_alone(
    make: Build, publish: Publish, proxy: Mirror, private_site: Mirror, certificate: Certificate
) -> None:
    """The mirror's name resolves nowhere: only the proxy knows the way, and only CA_BUNDLE the authority. Nobody else is asked for."""
    private_site.publish("answer", "1.0.0", ANSWER)
    commit_sha = publish_with_git_dependency(publish)

    mirrors = {"mirror_url": f"https://{NAME}/git", "crates_mirror_url": f"https://{NAME}/index/"}
    make(commit_sha, **mirrors, ca_bundle=certificate.authority)

    assert set(proxy.requests) == {f"CONNECT {NAME}:443"}
    assert {"/index/an/sw/answer", "/crates/answer/1.0.0/download", "/git/someone/helper/info/refs"} <= set(private_site.requests)


def test_a_mirror_of_a_private_authority_is_reached_by_its_certificate_alone(
    make: Build, publish: Publish, private_site: Mirror, certificate: Certificate
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
def test_a_certificate_that_is_not_trusted_is_told_with_the_setting(
    make: Build, publish: Publish, private_site: Mirror, phase: str
) -> None:
    checksum = private_site.publish("answer", "1.0.0", ANSWER)
    without = ("Cargo.lock",) if phase == "lock" else ()
    commit_sha = publish(guest(checksum), without=without)
    git_url = private_site.git_url if phase == "source" else f"file://{private_site.repositories}"

    with pytest.raises(BuildError) as caught:
        make(commit_sha, mirror_url=git_url, crates_mirror_url=private_site.index_url)

    assert caught.value.code == "fetch_network"
    assert "CA_BUNDLE" in caught.value.sentence
    assert "CA_BUNDLE" in caught.value.remedy
    assert re.search("certificate (signer not trusted|verify failed|problem)", caught.value.log_tail)
    assert not private_site.requests
