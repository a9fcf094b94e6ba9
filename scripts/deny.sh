#!/usr/bin/env bash
# Checks licences, sources and duplicates of every dependency with cargo-deny, and with SATEEN_ADVISORIES=1 known
# vulnerabilities too (the advisory database is fetched from the internet).
set -euo pipefail
version=0.20.2
tools=${SATEEN_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/sateen/tools}
export PATH="$tools/bin:$PATH"
if ! cargo deny --version 2>/dev/null | grep -q "$version"; then
    echo "== installing cargo-deny $version into $tools (about ten minutes on two cores)"
    # Outside the workspace's target directory: its profile is not ours.
    CARGO_TARGET_DIR=$(mktemp -d) && export CARGO_TARGET_DIR
    trap 'rm -rf "$CARGO_TARGET_DIR"' EXIT
    cargo install cargo-deny --version "=$version" --locked --root "$tools"
fi
cargo deny --locked check bans licenses sources
# Only on demand: a directory that an attempt without a network left behind must not decide what a later run does.
if [ "${SATEEN_ADVISORIES:-}" = 1 ]; then
    cargo deny --locked check advisories
else
    echo "note: known vulnerabilities were not checked; set SATEEN_ADVISORIES=1 where the internet can be reached"
fi
