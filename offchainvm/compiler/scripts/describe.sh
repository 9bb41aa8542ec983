# Asked of an image when it is recorded, after toolchain.sh: a line of the compiler, one of the C compiler, then a target a line.
echo "$("$RUSTC" -V)"
echo "$(clang --version 2> /dev/null | head -n 1)"
wasm_targets
