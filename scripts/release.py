#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prepare a release.

::

    python scripts/release.py check v0.1.0      # do tag, changelog and citation agree?
    python scripts/release.py resolve v0.1.0 [--repository URL] [--documentation URL]

``resolve`` writes the URLs of source, issues, changes and documentation into the metadata of the
package and into ``CITATION.cff``, and makes the relative links of the README absolute, as PyPI needs
them. It changes the working copy that is published, not the repository. URLs come from the section
``release`` of ``setup.cfg``, or else from the options.

Exit code: 0 if it succeeded, 1 if something does not agree.
"""

import argparse
import configparser
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ('.png', '.svg')


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description='Check or prepare a release.')
    parser.add_argument('action', choices=('check', 'resolve'))
    parser.add_argument('tag', help='tag or version, such as v0.1.0')
    parser.add_argument('--repository', help='URL of the repository')
    parser.add_argument('--documentation', help='URL of the built documentation')
    args = parser.parse_args(argv)
    version = args.tag.removeprefix('v')
    if args.action == 'check':
        problems = find_disagreements(root, version)
        for problem in problems:
            print(problem, file=sys.stderr)
        return 1 if problems else 0
    repository, documentation = read_urls(root)
    repository = repository or args.repository
    if not repository:
        parser.error('setup.cfg names no repository; add it there, or give --repository')
    resolve(root, version, repository.rstrip('/'), documentation or args.documentation)
    return 0


def find_disagreements(root: Path, version: str) -> list[str]:
    """List what does not agree with a version: changelog and citation.

    Parameters
    ----------
    root : Path
        The repository.
    version : str
        Such as ``'0.1.0'``.

    Returns
    -------
    list of str
        One sentence per problem; empty if there is none.
    """
    problems = []
    changelog = (root / 'CHANGELOG.md').read_text(encoding='utf-8')
    section = re.search(rf'^## \[{re.escape(version)}\] - (\S+)$', changelog, re.MULTILINE)
    if section is None:
        problems.append(f'CHANGELOG.md has no section "## [{version}] - DATE"; add it')
    unreleased = re.search(r'^## \[Unreleased\]\n(.*?)^## ', changelog, re.MULTILINE | re.DOTALL)
    if unreleased and unreleased[1].strip():
        problems.append(f'CHANGELOG.md has unreleased entries; move them to [{version}]')
    citation = (root / 'CITATION.cff').read_text(encoding='utf-8')
    for field, value in (('version', version), ('date-released', section and section[1])):
        line = re.search(rf'^{field}: (\S+)$', citation, re.MULTILINE)
        if value and (line is None or line[1] != value):
            stated = line[1] if line else 'nothing'
            problems.append(f'CITATION.cff: {field} must be {value}, got {stated}')
    return problems


def read_urls(root: Path) -> tuple[str, str]:
    """Read the URLs of repository and documentation from setup.cfg; '' if it names none."""
    config = configparser.RawConfigParser()
    config.read(root / 'setup.cfg', encoding='utf-8')
    return config.get('release', 'repository'), config.get('release', 'documentation')


def resolve(root: Path, version: str, repository: str, documentation: str | None) -> None:
    """Write the URLs into setup.cfg, README.md and CITATION.cff.

    Parameters
    ----------
    root : Path
        The repository.
    version : str
        Links of the README lead to the tag of this version.
    repository : str
        URL without trailing slash.
    documentation : str or None
        URL; without it, the documentation is the folder ``docs`` of the repository.
    """
    tree = f'{repository}/blob/v{version}'
    urls = {
        'Source': repository,
        'Issues': f'{repository}/issues',
        'Changes': f'{tree}/CHANGELOG.md',
        'Documentation': documentation or f'{tree}/docs/index.md',
    }
    lines = ''.join(f'    {name} = {url}\n' for name, url in urls.items())
    _rewrite(root / 'setup.cfg', r'(?m)^(project_urls =\n)', rf'\1{lines}')
    _rewrite(root / 'CITATION.cff', r'(?m)^(version: .*\n)', rf'\1repository-code: {repository}\n')
    readme = root / 'README.md'
    readme.write_text(make_absolute(readme.read_text(encoding='utf-8'), tree), encoding='utf-8')


def make_absolute(text: str, tree: str) -> str:
    """Make the relative links of a page absolute; pictures are linked as raw files.

    Examples
    --------
    >>> make_absolute('[usage](docs/usage.md#input) ![x](x.png)', 'https://host/a/blob/v1')
    '[usage](https://host/a/blob/v1/docs/usage.md#input) ![x](https://host/a/raw/v1/x.png)'
    """

    def lead(match: re.Match[str]) -> str:
        path = match[1]
        if re.match(r'[a-z]+:|#', path):
            return match[0]
        base = tree.replace('/blob/', '/raw/') if path.endswith(PICTURES) else tree
        return f']({base}/{path})'

    return re.sub(r'\]\(([^)\s]+)\)', lead, text)


def _rewrite(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(encoding='utf-8'), count=1)
    if not count:
        raise SystemExit(f'{path}: nothing matches {pattern}')
    path.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())
