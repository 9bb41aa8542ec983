# Read by every phase: names the real compiler, past rustup's proxies, which would obey a rust-toolchain.toml.
CARGO=cargo RUSTC=rustc
if command -v rustup > /dev/null; then
    CARGO=$(rustup which cargo) RUSTC=$(rustup which rustc)
fi
RUSTC_WRAPPER='' RUSTC_WORKSPACE_WRAPPER=''
export RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
RUSTLIB=$("$RUSTC" --print sysroot)/lib/rustlib
# Debian ships no rust-lld; wasm-ld is the same program.
if ! find "$RUSTLIB" -name rust-lld 2> /dev/null | grep -q .; then
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld CARGO_TARGET_WASM32_WASI_LINKER=wasm-ld
fi
# For crates with C inside: the names that the cc crate reads. Where there is no llvm-ar, GNU ar does: linkers since Rust 1.78 want no index.
if command -v clang > /dev/null; then
    for target in wasm32_unknown_unknown wasm32_wasip1 wasm32_wasi; do
        export "CC_$target=clang" "AR_$target=$(command -v llvm-ar || echo ar)"
    done
    # An older wasi-libc lies under the old name only.
    [ -d /usr/include/wasm32-wasip1 ] || export CFLAGS_wasm32_wasip1=--target=wasm32-wasi
fi

# The WASM targets that this toolchain has a standard library for, by its own names.
wasm_targets() {
    for folder in "$RUSTLIB"/wasm32-*/lib; do
        [ ! -d "$folder" ] || basename "$(dirname "$folder")"
    done
}
