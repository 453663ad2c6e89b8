#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make sure that the programs for `make test-container` are installed; print the reason in one line if
# that is not possible.
set -euo pipefail

missing=()
for tool in buildah podman runc mmdebstrap; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
    echo "${missing[*]} not found, and apt-get is not available"
    exit 1
fi
if (($(id -u) != 0)); then
    echo "${missing[*]} not found; run as root: apt-get install --no-install-recommends ${missing[*]}"
    exit 1
fi
# the output of apt-get goes to the log, its last line into the reason
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "Debian's packages ${missing[*]} cannot be installed: $(tail -n 1 "$log")"
    exit 1
fi
