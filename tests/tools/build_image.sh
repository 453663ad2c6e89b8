#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the Dockerfile without docker and without a registry.
#     tests/tools/build_image.sh NAME VERSION
# As root on Debian, with buildah, podman and mmdebstrap. PYTHON is a Python with pip; DEBIAN_MIRROR,
# if set, is the mirror of the packages.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools/container_storage.sh
name=localhost/$1
version=$2
started=$SECONDS
base=debian:bookworm-slim

# 1. A replacement for the base image of a registry: the same packages from the same source, without
#    documentation and translations as in "slim". FROM resolves its short name.
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

# 2. The first stage of the image, built without mounts: a mount leaves an empty folder in the image.
build --target interpreter >/dev/null

# 3. The rest, with the pip settings of this machine. They may contain passwords: removed at the end.
settings=$(mktemp -d)
trap 'rm -rf "$settings"' EXIT
mounts=()
while read -r mount; do
    mounts+=(--volume "$mount")
done < <("${PYTHON:-python3}" tests/tools/pip_settings.py "$settings")
((${#mounts[@]})) || { echo "no pip settings from tests/tools/pip_settings.py; run it with ${PYTHON:-python3} to see why" >&2; exit 1; }
build "${mounts[@]}" --tag "$name" >/dev/null
line 'image' $((SECONDS - started)) >>"$CONTAINER_DIR/measured.txt"
