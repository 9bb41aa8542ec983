# Read by every phase: names the real compiler, past rustup's proxies, which would obey a rust-toolchain.toml.
CARGO=cargo RUSTC=rustc
if command -v rustup > /dev/null; then
    CARGO=$(rustup which cargo) RUSTC=$(rustup which rustc)
fi
RUSTC_WRAPPER='' RUSTC_WORKSPACE_WRAPPER=''
export RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
# Debian ships no rust-lld; wasm-ld is the same program.
if ! find "$("$RUSTC" --print sysroot)/lib/rustlib" -name rust-lld 2> /dev/null | grep -q .; then
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld CARGO_TARGET_WASM32_WASI_LINKER=wasm-ld
fi
