"""Where the volumes of a build are mounted in its containers."""

from __future__ import annotations

FOLDERS = {"conf": "/conf", "net": "/net", "src": "/src", "cargo": "/cargo", "out": "/out", "build": "/build"}
"""By their names."""
