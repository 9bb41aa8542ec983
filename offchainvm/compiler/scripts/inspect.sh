# Phase 1b, for a project below the root of the repository: what cargo says of it. No network; no code of the repository runs.
# Needs ROOT, the project's folder. Writes to /out. Exit code 34 as in source.sh.
set -eu
umask 022
cd /
. /conf/toolchain.sh
"$CARGO" metadata --no-deps --offline --format-version 1 --manifest-path "$ROOT/Cargo.toml" > /out/metadata.json || exit 34
