#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make sure that SLURM and MUNGE are installed; as root on Debian, install them. Exit code 1, with the
# reason on the last line, if that is not possible.
set -uo pipefail
PATH=$PATH:/usr/sbin:/sbin

absent() {
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" >/dev/null || return 0
    done
    return 1
}

if ! absent; then exit 0; fi
if ! command -v apt-get >/dev/null; then echo 'SLURM is not installed, and apt-get is not available'; exit 1; fi
if ((EUID)); then echo 'SLURM is not installed; run as root: apt-get install --no-install-recommends slurm-wlm munge'; exit 1; fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if { apt-get update && apt-get install --yes --no-install-recommends slurm-wlm munge; } >"$log" 2>&1; then
    exit 0
fi
echo "apt-get cannot install slurm-wlm and munge: $(grep '^E:' "$log" | head -n 1)"
exit 1
