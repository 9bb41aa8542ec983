# Phase 3: the build, where strangers' code runs. No network, sources read-only. Arguments: those of `cargo build`.
set -eu
umask 022
cd /
# The second of two builds starts as empty as the first did.
chmod -R u+rwX /build 2> /dev/null || :
find /build -mindepth 1 -delete
mkdir -p "$HOME"
. /conf/toolchain.sh
exec "$CARGO" build --offline --locked --release "$@"
