# Phase 3: the build, where strangers' code runs. No network, sources read-only. Arguments: those of `cargo build`.
set -eu
umask 022
cd /
mkdir -p "$HOME"
. /conf/toolchain.sh
exec "$CARGO" build --offline --locked --release "$@"
