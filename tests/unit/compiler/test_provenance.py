"""What a provenance says of how its module came about; the statement itself is in the integration tests."""

from __future__ import annotations

import json
from pathlib import Path

from offchainvm.compiler.provenance import circumstances, read_claim

OF_AN_EARLIER_RELEASE = (Path(__file__).parents[3] / "examples" / "prebuilt" / "word-count.provenance.json").read_bytes()
SCRIPTS = "the sandbox's scripts"


def test_the_sandboxs_scripts_are_compared_where_they_were_noted() -> None:
    told = json.loads(OF_AN_EARLIER_RELEASE)
    told["predicate"]["buildDefinition"]["internalParameters"].pop("scripts", None)
    assert SCRIPTS not in read_claim(json.dumps(told).encode()).circumstances

    told["predicate"]["buildDefinition"]["internalParameters"]["scripts"] = {"compile.sh": "0" * 64}
    claim = read_claim(json.dumps(told).encode())

    assert claim.circumstances[SCRIPTS] == {"compile.sh": "0" * 64}
    assert circumstances(told) == claim.circumstances
