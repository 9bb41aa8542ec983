# Phase 2b: unpacks the crates that the worker has laid down, and fetches git dependencies. No code of the repository runs.
# Needs ROOT, the project's folder. A network is there only where Cargo.lock names a git repository.
set -eu
umask 022
cd /cargo
mkdir -p crates
for file in *.crate; do
    [ -f "$file" ] || continue
    folder=crates/${file%.crate}
    mkdir "$folder"
    # Without the owner's and group's names; what a crate calls its own top folder does not matter.
    tar -xzf "$file" -C "$folder" --strip-components=1 --no-same-owner || exit 41
    # Cargo compares it with Cargo.lock, so it is taken from the file that was unpacked.
    sum=$(sha256sum -- "$file")
    rm -rf "$folder/.cargo-checksum.json"
    printf '{"files":{},"package":"%s"}' "${sum%% *}" > "$folder/.cargo-checksum.json"
    rm -f -- "$file"
done
cd /
. /conf/toolchain.sh
"$CARGO" fetch --locked --manifest-path "$ROOT"/Cargo.toml || exit 42
