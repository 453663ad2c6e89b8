#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run an image with minimal rights: only /out, /work and /tmp are writable; no network, no capabilities
# and no way to gain any.
#     tests/tools/run_image.sh IMAGE USER DATA OUT WORK [argument ...]
# USER is a number, or "-" for the user of the image. Run it as root: that user becomes the owner of the
# folders OUT and WORK.
set -euo pipefail
root=$(dirname "$0")/../..
source "$root/tests/tools/container_storage.sh"
image=localhost/$1
user=$2
data=$(realpath "$3")
mkdir -p "$4" "$5"
out=$(realpath "$4")
work=$(realpath "$5")
shift 5

options=()
[ "$user" = - ] || options+=(--user "$user:$user")
[ "$user" = - ] && user=1000
chown -R "$user:$user" "$out" "$work"

# some machines select the kernels of OpenBLAS, which round differently
for name in OPENBLAS_CORETYPE OPENBLAS_L2_SIZE; do
    [ -z "${!name:-}" ] || options+=(--env "$name")
done
# Without --passwd=false podman would give the user a passwd entry, which docker does not.
exec podman --runtime runc --cgroup-manager cgroupfs run --rm --pull never \
    --passwd=false --network none --read-only --read-only-tmpfs=false --tmpfs /tmp \
    --cap-drop all --security-opt no-new-privileges \
    --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 \
    --volume "$data:/data:ro" --volume "$out:/out" --volume "$work:/work" \
    "${options[@]}" "$image" "$@"
