# SPDX-License-Identifier: Apache-2.0
"""Make this machine's pip settings available to the build of an image, but not to the image.

    python tests/tools/pip_settings.py FOLDER

writes FOLDER/pip.conf with the indexes, proxy and certificates that pip uses on this machine, from
all its sources, and prints their mounts for ``buildah build --volume``, one per line. As mounts they
are not part of any layer. Constraints are omitted: the lock file determines the versions.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

KEPT = (
    'index-url', 'extra-index-url', 'find-links', 'no-index', 'trusted-host', 'proxy', 'retries',
    'timeout', 'default-timeout', 'cert',
)  # fmt: skip
# later ones win, as in pip
SECTIONS = ('global', 'install', 'wheel', ':env:')
CERTIFICATES = '/etc/pip-certificates.crt'


def read_settings():
    """Read the settings of pip from all its files and the environment."""
    lines = subprocess.run(
        [sys.executable, '-m', 'pip', 'config', 'list'], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    by_section = {}
    for line in lines:
        name, value = line.split('=', 1)
        section, key = name.rsplit('.', 1)
        if section in SECTIONS and key in KEPT:
            by_section[section, key] = ast.literal_eval(value)
    ordered = sorted(by_section.items(), key=lambda item: SECTIONS.index(item[0][0]))
    settings = {key: value for (_, key), value in ordered}
    if bundle := os.environ.get('REQUESTS_CA_BUNDLE'):
        settings.setdefault('cert', bundle)
    return settings


def local_folders(settings):
    """List the local folders in the settings."""
    for key in ('index-url', 'extra-index-url', 'find-links'):
        for word in settings.get(key, '').split():
            url = urlsplit(word)
            path = Path(url.path)
            if url.scheme not in ('', 'file') or not path.is_dir():
                continue
            # pages of an index may point to files beside its folder
            is_index = key != 'find-links' and path.parent != Path('/')
            yield path.parent if is_index else path


def main(folder):
    settings = read_settings()
    folders = sorted(set(local_folders(settings)))
    mounts = [f'{path}:{path}:ro' for path in folders]
    if 'cert' in settings:
        mounts.append(f'{Path(settings["cert"]).resolve()}:{CERTIFICATES}:ro')
        settings['cert'] = CERTIFICATES
    conf = folder.resolve() / 'pip.conf'
    lines = [f'{key} = {" ".join(value.split())}\n' for key, value in settings.items()]
    conf.write_text('[global]\n' + ''.join(lines))
    print(*mounts, f'{conf}:/etc/pip.conf:ro', sep='\n')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
