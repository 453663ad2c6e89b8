# SPDX-License-Identifier: Apache-2.0
"""The audit of the locked versions, with imitated answers of pip-audit."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

PATH = Path(__file__).resolve().parents[2] / 'scripts' / 'audit.py'
spec = importlib.util.spec_from_file_location('audit', PATH)
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

SOUND = {'name': 'sound', 'version': '1.0', 'vulns': []}
ADVISORY = {'id': 'PYSEC-1', 'fix_versions': ['2.1'], 'aliases': [], 'description': ''}
UNSOUND = {'name': 'unsound', 'version': '2.0', 'vulns': [ADVISORY]}
UNKNOWN = {'name': 'unknown', 'skip_reason': 'not found on PyPI'}


@pytest.fixture
def answer(monkeypatch):
    def imitate(stdout='', stderr=''):
        result = SimpleNamespace(stdout=stdout, stderr=stderr, returncode=1)
        monkeypatch.setattr(subprocess, 'run', lambda *args, **options: result)

    return imitate


def packages(*members):
    return json.dumps({'dependencies': members, 'fixes': []})


def test_a_known_vulnerability_fails(answer, capsys):
    answer(packages(SOUND, UNSOUND, UNKNOWN))
    assert audit.main(['a.lock']) == 1
    assert capsys.readouterr().out == 'a.lock: unsound 2.0 has PYSEC-1, mended in 2.1\n'


def test_sound_packages_pass_and_are_counted(answer, capsys):
    answer(packages(SOUND, UNKNOWN))
    assert audit.main(['a.lock']) == 0
    assert 'no known vulnerability in 1 of 2 packages' in capsys.readouterr().out


def test_a_registry_without_advisories_is_skipped_in_one_sentence(answer, capsys):
    answer(packages(UNKNOWN))
    assert audit.main(['a.lock']) == 0
    assert capsys.readouterr().out.count('\n') == 1


def test_a_registry_that_does_not_answer_is_skipped_in_one_sentence(answer, capsys):
    answer(stderr='Traceback\nrequests.exceptions.ConnectionError: no route')
    assert audit.main(['a.lock']) == 0
    assert 'not audited, PyPI does not answer' in capsys.readouterr().out


def test_a_lock_file_that_cannot_be_read_is_an_error(answer):
    answer(stderr='ERROR:pip_audit._cli:invalid requirement')
    with pytest.raises(RuntimeError, match=r'a\.lock: .*invalid requirement'):
        audit.main(['a.lock'])
