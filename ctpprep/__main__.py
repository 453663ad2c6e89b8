# SPDX-License-Identifier: Apache-2.0
"""``python -m ctpprep`` is the ``ctpprep`` command."""

import sys

from ctpprep.cli import main

if __name__ == '__main__':
    sys.exit(main())
