# Phase 2: a lock file where there is none, and all crates that it names. Network; no code of the repository runs.
# Needs TARGET and ROOT, the project's folder. Exit codes 41 and 42 name the step that failed.
set -eu
umask 022
cd /
. /conf/toolchain.sh
if [ ! -f "$ROOT"/Cargo.lock ] && [ -f /conf/Cargo.lock ]; then
    cp /conf/Cargo.lock "$ROOT"/Cargo.lock # a rebuild uses the one that the first build made
elif [ ! -f "$ROOT"/Cargo.lock ]; then
    # No crate newer than the toolchain; cargo before 1.84 does not know this wish.
    CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback "$CARGO" generate-lockfile --manifest-path "$ROOT"/Cargo.toml || exit 41
fi
# Build scripts and procedural macros run on the host's target, which must be named too.
host=$("$RUSTC" -vV | sed -n 's/^host: //p')
"$CARGO" fetch --locked --target "$TARGET" --target "$host" --manifest-path "$ROOT"/Cargo.toml || exit 42
