"""HTTPS of our clients: they trust the authorities of this host, that of CA_BUNDLE besides, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from tls import ended_before, make_certificate

from offchainvm.cli.checks import builds
from offchainvm.coordinator import Coordinator
from offchainvm.devnet import serve
from offchainvm.devnet.coordinator import CoordinatorApp
from offchainvm.errors import Unavailable
from offchainvm.near.transport import Pool

TOKEN = "a-token-of-tests"
SOURCE_KEY, COMMIT = "c" * 64, "d" * 40


@pytest.fixture
def urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A Coordinator three times: by an authority of this host, by that of CA_BUNDLE, and by one that nobody knows."""
    certificates = {}
    for name in ("host", "bundle", "unknown"):
        (tmp_path / name).mkdir()
        certificates[name] = make_certificate(tmp_path / name)
    for variable in ("GIT_SSL_CAINFO", "SSL_CERT_FILE"):
        monkeypatch.setenv(variable, str(certificates["host"].authority))
    monkeypatch.setenv("CA_BUNDLE", str(certificates["bundle"].authority))
    with serve.in_thread(CoordinatorApp(token=TOKEN)) as plain:
        port = urlsplit(plain).port
        assert port is not None
        with (
            ended_before(port, certificates["host"]) as host,
            ended_before(port, certificates["bundle"]) as bundle,
            ended_before(port, certificates["unknown"]) as unknown,
        ):
            yield {"host": f"https://127.0.0.1:{host}", "bundle": f"https://127.0.0.1:{bundle}", "unknown": f"https://127.0.0.1:{unknown}"}


def test_the_host_and_ca_bundle_say_whom_a_client_trusts(urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca_bundle = tmp_path / "bundle" / "authority.pem"
    pool = Pool(connect_seconds=5, read_seconds=5, connections=1, ca_bundle=ca_bundle)
    for name in ("host", "bundle"):
        coordinator = Coordinator(urls[name], SecretStr(TOKEN), ca_bundle=ca_bundle)
        coordinator.upload(SOURCE_KEY, "https://github.com/a/b", COMMIT, b"\0asm\1\0\0\0")
        assert coordinator.wasm_exists(SOURCE_KEY)
        coordinator.close()
        assert pool.get(f"{urls[name]}/health").status == 200
        monkeypatch.setenv("SOURCE_MIRROR_URL", f"{urls[name]}/health")
        assert "answers" in builds.check_source_host()

    stranger = Coordinator(urls["unknown"], SecretStr(TOKEN), ca_bundle=ca_bundle)
    with pytest.raises(Unavailable, match="certificate"):
        stranger.health()
    stranger.close()
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        pool.get(f"{urls['unknown']}/health")
    monkeypatch.setenv("SOURCE_MIRROR_URL", urls["unknown"])
    with pytest.raises(Unavailable, match="CA_BUNDLE"):
        builds.check_source_host()
