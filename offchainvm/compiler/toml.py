"""TOML of strangers, read on this host: refused where reading it would take much longer than its length allows."""

from __future__ import annotations

import re
import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_KEY_PARTS = 16
_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
# The library takes time quadratic in the parts of a dotted key. No match begins inside a word or at an escaped quote: linear time.
_DEEP_KEY = re.compile(rf"(?<![A-Za-z0-9_\\-])(?:{_PART}[ \t]*\.[ \t]*){{{MOST_KEY_PARTS}}}")


def read_toml(untrusted_text: str) -> dict[str, Any]:
    """What a document of TOML 1.0 says, some 2 s per MiB at worst; the caller bounds its length.

    Raises:
        ValueError: it is no TOML, nests too deep, or has a dotted key of more than 16 parts.
    """
    if _DEEP_KEY.search(untrusted_text):
        raise ValueError("a key has too many parts")
    try:
        document: dict[str, Any] = tomllib.loads(untrusted_text)
    except RecursionError as error:
        raise ValueError("values are nested too deep") from error
    return document
