# Phase 2a: a lock file where the repository has none. Network; no code of the repository runs.
# Needs ROOT, the project's folder.
set -eu
umask 022
cd /
. /conf/toolchain.sh
# No crate newer than the toolchain; cargo before 1.84 does not know this wish.
export CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback
"$CARGO" --config /net/cargo.toml generate-lockfile --manifest-path "$ROOT"/Cargo.toml
# What is left of the index tells of the mirror, whose login strangers' code must not find.
rm -rf /cargo/registry
