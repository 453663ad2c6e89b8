#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make sure that storescp (dcmtk) and Orthanc are installed; as root on Debian, install them. Exit code 1,
# with the reason on the last line, if that is not possible.
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin

# pynetdicom has a storescp as well
if command -v dcmdump >/dev/null && command -v Orthanc >/dev/null; then exit 0; fi
packages=(dcmtk orthanc)
if ! command -v apt-get >/dev/null; then echo 'dcmtk and Orthanc are not installed, and apt-get is not available'; exit 1; fi
if ((EUID)); then echo "dcmtk and Orthanc are not installed; run as root: apt-get install --no-install-recommends ${packages[*]}"; exit 1; fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
trap 'rm -f "$log"' EXIT
# the tests start servers of their own: that of the package must not be started
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    trap 'rm -f "$log" "$policy"' EXIT
fi
if { apt-get update && apt-get install --yes --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
    exit 0
fi
echo "apt-get cannot install ${packages[*]}: $(grep '^E:' "$log" | head -n 1)"
exit 1
