# Phase 1: check one commit out into /src, and say what it is. Network; no code of the repository runs.
# Needs URL, SHA. Writes to /out. Exit codes 31 to 34 name the step that failed.
set -eu
umask 022
cd /src
# The history stays outside the tree that is built: no hooks, no configuration of its own.
export GIT_DIR=/tmp/git GIT_WORK_TREE=/src
git init -q --template=
git fetch -q --depth 1 --no-tags --no-recurse-submodules --end-of-options "$URL" "$SHA" || exit 31
got=$(git rev-parse --verify -q --end-of-options 'FETCH_HEAD^{commit}') || exit 32
[ "$got" = "$SHA" ] || exit 32
# Listed before it is checked out: a tree that does not fit is judged by its list.
git ls-tree -r -l -z --full-tree "$SHA" > /out/tree
git rev-parse "$SHA^{tree}" > /out/git-tree
git checkout -q --force --detach "$SHA" || exit 33
unset GIT_DIR GIT_WORK_TREE
# As cargo will read them. None of them holds a NUL: cargo takes no such file.
find /src -name Cargo.toml -type f -exec sh -c 'for file do cat "$file"; printf "\0"; done' sh {} + > /out/manifests

# From / and with a pinned compiler: cargo would run what a repository's .cargo/config.toml names.
cd /
. /conf/toolchain.sh
"$RUSTC" -vV > /out/rustc
"$CARGO" -V > /out/cargo
wasm_targets > /out/targets
if [ -f /src/Cargo.toml ] && [ ! -L /src/Cargo.toml ]; then
    "$CARGO" metadata --no-deps --offline --format-version 1 --manifest-path /src/Cargo.toml > /out/metadata.json || exit 34
fi
