# SPDX-License-Identifier: Apache-2.0
# Sourced: images lie in a folder of this clone, so that those of the machine are not touched.
CONTAINER_DIR=$(realpath -m "${CONTAINER_DIR:-.container}")
mkdir -p "$CONTAINER_DIR"
# one overlay cannot lie on another, as inside of most containers; whole copies can
driver=overlay
[ "$(stat --file-system --format %T "$CONTAINER_DIR")" != overlayfs ] || driver=vfs
cat >"$CONTAINER_DIR/storage.conf" <<CONF
[storage]
driver = "${STORAGE_DRIVER:-$driver}"
runroot = "$CONTAINER_DIR/run"
graphroot = "$CONTAINER_DIR/storage"
CONF
export CONTAINERS_STORAGE_CONF=$CONTAINER_DIR/storage.conf
