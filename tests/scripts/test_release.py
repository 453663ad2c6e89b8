# SPDX-License-Identifier: Apache-2.0
"""Tag, changelog and citation agree, and a published copy has absolute links."""

import configparser
import re
import shutil
from pathlib import Path

import pytest
import yaml

import release

ROOT = Path(__file__).resolve().parents[2]
FILES = ('setup.cfg', 'README.md', 'CHANGELOG.md', 'CITATION.cff')
HOME = 'https://git.example.org/lab/ctpprep'


@pytest.fixture
def copy(tmp_path):
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def latest_version():
    return re.search(r'^## \[(\d.*?)\]', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)[1]


def test_citation_has_the_latest_version_of_the_changelog(copy):
    problems = release.find_disagreements(copy, latest_version())
    assert [problem for problem in problems if 'unreleased' not in problem] == []


def test_another_version_is_refused(copy, capsys):
    assert release.main(['check', 'v9.9.9'], copy) == 1
    messages = capsys.readouterr().err
    assert 'CHANGELOG.md has no section "## [9.9.9] - DATE"' in messages
    assert f'CITATION.cff: version must be 9.9.9, got {latest_version()}' in messages


def test_unreleased_entries_are_refused(copy):
    path = copy / 'CHANGELOG.md'
    path.write_text(path.read_text().replace('## [Unreleased]\n', '## [Unreleased]\n\n- New.\n'))
    assert any('unreleased' in text for text in release.find_disagreements(copy, latest_version()))


def test_published_copy_has_all_urls_and_no_relative_link(copy):
    assert release.main(['resolve', 'v0.1.0', '--repository', f'{HOME}/'], copy) == 0
    config = configparser.RawConfigParser()
    config.read(copy / 'setup.cfg')
    urls = dict(re.findall(r'^(\w+) = (\S+)$', config['metadata']['project_urls'], re.MULTILINE))
    assert urls['Source'] == HOME
    assert urls['Issues'] == f'{HOME}/issues'
    assert {'Documentation', 'Changes', 'Method'} < set(urls)
    targets = re.findall(r'\]\(([^)\s]+)\)', (copy / 'README.md').read_text())
    assert [target for target in targets if not target.startswith('https://')] == []
    assert f'{HOME}/raw/v0.1.0/docs/images/summary.png' in targets
    assert f'repository-code: {HOME}' in (copy / 'CITATION.cff').read_text()


def test_without_a_repository_nothing_is_resolved(copy, capsys):
    with pytest.raises(SystemExit):
        release.main(['resolve', 'v0.1.0'], copy)
    assert 'setup.cfg names no repository' in capsys.readouterr().err
    assert all((copy / name).read_text() == (ROOT / name).read_text() for name in FILES)


of_workflows = pytest.mark.parametrize(
    'path', sorted(ROOT.glob('.github/workflows/*.yml')), ids=lambda p: p.name
)


@of_workflows
def test_workflows_run_what_exists(path):
    jobs = yaml.safe_load(path.read_text())['jobs'].values()
    commands = '\n'.join(step.get('run', '') for job in jobs for step in job.get('steps', ()))
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    called = re.findall(r'^make (?:\w+=\S+ )*(.+)$', commands, re.MULTILINE)
    assert {target for line in called for target in line.split()} <= targets
    assert all((ROOT / script).is_file() for script in re.findall(r'scripts/\w+\.py', commands))


@of_workflows
def test_every_job_that_checks_out_may_read_the_repository(path):
    workflow = yaml.safe_load(path.read_text())
    for job in workflow['jobs'].values():
        steps = [step.get('uses', '').partition('@')[0] for step in job.get('steps', ())]
        granted = job.get('permissions', workflow['permissions'])
        assert 'actions/checkout' not in steps or granted['contents'] == 'read'


def test_ci_runs_all_checks():
    text = (ROOT / '.github' / 'workflows' / 'ci.yml').read_text()
    assert '- run: .ci/run' in text


def test_templates_ask_for_log_config_and_quality_table():
    text = (ROOT / '.github' / 'ISSUE_TEMPLATE' / 'wrong_result.yml').read_text()
    fields = {item.get('id') for item in yaml.safe_load(text)['body']
              if item.get('validations', {}).get('required')}  # fmt: skip
    assert {'log', 'config', 'quality'} <= fields
