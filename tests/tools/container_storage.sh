# SPDX-License-Identifier: Apache-2.0
# Sourced: images lie in a folder of this clone, so that those of the machine are not touched.
CONTAINER_DIR=$(realpath -m "${CONTAINER_DIR:-.container}")
mkdir -p "$CONTAINER_DIR"
cat >"$CONTAINER_DIR/storage.conf" <<CONF
[storage]
driver = "${STORAGE_DRIVER:-overlay}"
runroot = "$CONTAINER_DIR/run"
graphroot = "$CONTAINER_DIR/storage"
CONF
export CONTAINERS_STORAGE_CONF=$CONTAINER_DIR/storage.conf
