"""What tests of builds share: the small limits of a hostile case, its parts, and how the fixtures that build are called."""

from __future__ import annotations

from collections.abc import Callable

from offchainvm.compiler.base import BuiltModule
from offchainvm.compiler.limits import BuildLimits
from offchainvm.errors import BuildError

SMALL = BuildLimits(timeout_seconds=90, memory_mb=512, disk_mb=128, source_mb=16, dependencies_mb=64)
PACKAGE = '[package]\nname = "guest"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
LIBRARY = f'{PACKAGE}[lib]\ncrate-type = ["cdylib"]\n'
LOCKFILE = 'version = 3\n\n[[package]]\nname = "guest"\nversion = "0.1.0"\n'
EXECUTE = '#[no_mangle]\npub extern "C" fn execute(_p: i32, _n: i32) -> i32 { 65532 }\n'
Build = Callable[..., BuiltModule]
Publish = Callable[..., str]
Refused = Callable[..., BuildError]
# Whoever runs it leaves a mark wherever that may be written, and fails.
EVIL = "#!/bin/sh\nfor folder in /src /cargo /out /build /tmp; do echo x > $folder/was-run; done\nexit 99\n"
UNTOUCHED = """
fn main() {
    for path in ["/src/was-run", "/cargo/was-run", "/build/was-run", "/tmp/was-run"] {
        assert!(std::fs::metadata(path).is_err(), "{path} is there");
    }
}
"""
