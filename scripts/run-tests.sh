#!/usr/bin/env bash
# Runs every test with cargo-nextest, the compose test included where a Docker engine can be had.
set -euo pipefail
export SATEEN_BIN_DIR=${SATEEN_BIN_DIR:-$CARGO_TARGET_DIR/release}
docker=
if [ -x scripts/test-docker.sh ] && [ "${SATEEN_TEST_DOCKER:-1}" != 0 ]; then
    if scripts/test-docker.sh start; then
        docker=started
        export SATEEN_TEST_DOCKER=1
    else
        echo "note: no Docker engine can be had here; the compose test is skipped"
    fi
fi
# Half of the mounts have their requests by io_uring then (tests/src/rings.rs).
rings=/sys/module/fuse/parameters/enable_uring
before=
if [ "$(cat $rings 2>/dev/null)" = N ] && echo Y 2>/dev/null >$rings; then
    before=N
fi
stop() {
    [ -z "$before" ] || echo "$before" >$rings
    [ -z "$docker" ] || scripts/test-docker.sh stop
}
trap stop EXIT
cargo nextest run --release --locked --workspace "$@"
