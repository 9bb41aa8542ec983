# Asked of an image when it is recorded, after toolchain.sh: the compiler, the C compiler, then a target a line.
"$RUSTC" -V
clang --version 2> /dev/null | head -n 1 || :
wasm_targets
