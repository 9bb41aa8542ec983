"""Files of certificates."""

from __future__ import annotations

from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from offchainvm.authorities import check_file, tls_context


def test_a_comment_between_certificates_may_be_in_any_language(tmp_path: Path) -> None:
    bundle = tmp_path / "authorities.pem"
    bundle.write_bytes("# Zürich\n".encode() + Path(DEFAULT_CA_BUNDLE_PATH).read_bytes())
    assert check_file(bundle) == bundle
    assert tls_context(bundle).get_ca_certs()
