# SPDX-License-Identifier: Apache-2.0
"""Compare the locked versions with the known vulnerabilities of Python packages.

    python scripts/audit.py requirements.lock requirements-build.lock

The advisories are those that PyPI publishes, read by pip-audit. Exit code 1 if a locked version has one.
Where PyPI does not answer, or is a mirror without advisories, one sentence is printed and the code is 0.
"""

import json
import subprocess
import sys
from typing import Any

UNREACHABLE = ('ConnectionError', 'ServiceError', 'Timeout', 'MaxRetryError', 'SSLError')


def read_advisories(lock: str) -> list[dict[str, Any]] | str:
    """Ask pip-audit about a lock file.

    Parameters
    ----------
    lock : str
        Path.

    Returns
    -------
    list of dict or str
        The packages, each with its advisories (``vulns``) or a ``skip_reason``; or why PyPI gave none.

    Raises
    ------
    RuntimeError
        If the lock file itself cannot be read.
    """
    command = [
        sys.executable, '-m', 'pip_audit', '--format', 'json', '--progress-spinner', 'off',
        '--disable-pip', '--require-hashes', '--requirement', lock,
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.stdout.startswith('{'):
        return list(json.loads(answer.stdout)['dependencies'])
    reason = (answer.stderr.strip().splitlines() or ['pip-audit printed nothing'])[-1]
    if any(word in reason for word in UNREACHABLE):
        return reason
    raise RuntimeError(f'{lock}: {reason}')


def format_audit(lock: str, packages: list[dict[str, Any]] | str) -> tuple[list[str], int]:
    """Format the lines about one lock file, and count its advisories.

    Examples
    --------
    >>> format_audit('a.lock', [{'name': 'b', 'version': '1', 'vulns': []}])
    (['a.lock: no known vulnerability in 1 of 1 packages'], 0)
    """
    if isinstance(packages, str):
        return [f'{lock}: not audited, PyPI does not answer ({packages})'], 0
    known = [package for package in packages if 'skip_reason' not in package]
    if not known:
        return [
            f'{lock}: not audited, this registry has no advisories for {len(packages)} packages'
        ], 0
    lines = []
    for package in known:
        for advisory in package['vulns']:
            mended = ', '.join(advisory['fix_versions']) or 'no version yet'
            lines.append(
                f'{lock}: {package["name"]} {package["version"]} has {advisory["id"]}, mended in {mended}'
            )
    summary = f'{lock}: no known vulnerability in {len(known)} of {len(packages)} packages'
    return lines or [summary], len(lines)


def main(locks: list[str]) -> int:
    """Print what is known about each lock file; return the exit code."""
    total = 0
    for lock in locks:
        lines, count = format_audit(lock, read_advisories(lock))
        print('\n'.join(lines))
        total += count
    return 1 if total else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
