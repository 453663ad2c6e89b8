#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make sure that Chromium is installed; as root on Debian, install it. Exit code 1, with the reason on
# the last line, if that is not possible.
set -uo pipefail

if [ -n "${CTPPREP_CHROMIUM:-}" ]; then exit 0; fi
for program in chromium chromium-browser google-chrome chrome; do
    if command -v "$program" >/dev/null; then exit 0; fi
done
if ! command -v apt-get >/dev/null; then echo 'Chromium is not installed, and apt-get is not available'; exit 1; fi
if ((EUID)); then echo 'Chromium is not installed; run as root: apt-get install --no-install-recommends chromium'; exit 1; fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if { apt-get update && apt-get install --yes --no-install-recommends chromium; } >"$log" 2>&1; then
    exit 0
fi
echo "apt-get cannot install chromium: $(grep '^E:' "$log" | head -n 1)"
exit 1
