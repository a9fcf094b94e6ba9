#!/usr/bin/env bash
# Installs what building (`build`) or testing (`test`) Sateen needs beyond Rust, gcc and make, on Debian or Ubuntu.
# Says what it does, does nothing where everything is there, and is safe to repeat.
set -euo pipefail
what=${1:-build}

need_rust=1.95
if ! command -v cargo >/dev/null; then
    echo "error: cargo was not found" >&2
    echo "hint: install Rust $need_rust or newer, for example with rustup" >&2
    exit 1
fi
have=$(rustc --version | awk '{print $2}')
if [ "$(printf '%s\n%s\n' "$need_rust" "$have" | sort -V | head -n 1)" != "$need_rust" ]; then
    echo "error: rustc is $have, Sateen needs $need_rust or newer" >&2
    echo "hint: rustup update stable" >&2
    exit 1
fi

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
if command -v dpkg-query >/dev/null; then
    want g++            # RocksDB
    want libclang-dev   # bindings to RocksDB are generated at build time
    want fuse3          # fusermount3
    install_wanted
else
    echo "note: this is not Debian; make sure that a C++ compiler, libclang and fusermount3 are installed"
fi

if [ "$what" = test ]; then
    nextest=0.9.143
    if ! cargo nextest --version >/dev/null 2>&1; then
        echo "== installing cargo-nextest $nextest (a few minutes)"
        cargo install cargo-nextest --version "=$nextest" --locked
    fi
fi
