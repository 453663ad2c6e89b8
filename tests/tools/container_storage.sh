# SPDX-License-Identifier: Apache-2.0
# To be sourced: images are stored in a folder of this clone, apart from those of the machine.
CONTAINER_DIR=$(realpath -m "${CONTAINER_DIR:-.container}")
mkdir -p "$CONTAINER_DIR"
# overlay does not work on overlay, as inside most containers; vfs copies whole layers instead
driver=overlay
[ "$(stat --file-system --format %T "$CONTAINER_DIR")" != overlayfs ] || driver=vfs
cat >"$CONTAINER_DIR/storage.conf" <<CONF
[storage]
driver = "${STORAGE_DRIVER:-$driver}"
runroot = "$CONTAINER_DIR/run"
graphroot = "$CONTAINER_DIR/storage"
CONF
export CONTAINERS_STORAGE_CONF=$CONTAINER_DIR/storage.conf
