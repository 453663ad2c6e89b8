#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the Dockerfile without docker and without a registry.
#     tests/tools/build_image.sh NAME VERSION
# As root on Debian, with buildah, podman and mmdebstrap. PYTHON names a Python that has pip;
# DEBIAN_MIRROR, if set, where packages come from.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools/container_storage.sh
name=localhost/$1
version=$2
started=$SECONDS
base=debian:bookworm-slim

# 1. What stands in for the base image of a registry: the same packages from the same place, without
#    documentation and translations as in "slim". FROM finds it by its short name.
if ! buildah inspect --type image "localhost/$base" >/dev/null 2>&1; then
    tar=$CONTAINER_DIR/base.tar
    mmdebstrap --quiet --variant=minbase \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        bookworm "$tar" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    podman import --quiet \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'CMD ["bash"]' "$tar" "localhost/$base" >/dev/null
    rm "$tar"
fi
line() { printf '%-40s %6d s\n' "$1" "$2"; }
line 'base image' $((SECONDS - started)) >"$CONTAINER_DIR/measured.txt"
started=$SECONDS

build() {
    buildah build --quiet --isolation chroot --network host --pull-never --layers \
        --build-arg BASE_IMAGE="$base" --build-arg VERSION="$version" \
        --build-arg VCS_REF="$(git rev-parse HEAD 2>/dev/null || echo unknown)" "$@" .
}

# 2. The stage that the image itself begins with, before any mount: a mount leaves its empty place behind.
build --target interpreter >/dev/null

# 3. The rest, with the pip settings of this machine. They may hold passwords: removed at the end.
settings=$(mktemp -d)
trap 'rm -rf "$settings"' EXIT
mounts=()
while read -r mount; do
    mounts+=(--volume "$mount")
done < <("${PYTHON:-python3}" tests/tools/pip_settings.py "$settings")
((${#mounts[@]})) || { echo 'the settings of pip could not be read' >&2; exit 1; }
build "${mounts[@]}" --tag "$name" >/dev/null
line 'image' $((SECONDS - started)) >>"$CONTAINER_DIR/measured.txt"
