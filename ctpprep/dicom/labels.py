# SPDX-License-Identifier: Apache-2.0
"""Labels of participants and sessions, and the private file that links them to the source."""

import csv
import io
import re
from pathlib import Path
from typing import Any

from ctpprep.exceptions import UsageError
from ctpprep.io.files import read_object, read_text, write_atomically

LABEL = re.compile(r'[a-zA-Z0-9]+')
COLUMNS = ('source', 'participant_id', 'session_id')


class Labels:
    """Assign labels, from a table, a pattern or consecutive numbers.

    Parameters
    ----------
    links : Path
        Private file that contains the labels of earlier calls, and gets those of this one.
    table : Path or None
        Tab-separated, with the columns `source` (PatientID, study UID, or path of a file) and
        `participant_id`, perhaps `session_id`.
    pattern : str or None
        Regular expression with the group `participant`, perhaps `session`, that is searched in the
        PatientID, or in the path of a NIfTI file.
    """

    def __init__(self, links: Path, table: Path | None = None, pattern: str | None = None):
        self.links = links
        self.content: dict[str, Any] = {'participants': {}, 'studies': {}}
        if links.exists():
            self.content |= read_object(links, UsageError)
        self._rows = read_table(table) if table else {}
        try:
            self._pattern = re.compile(pattern) if pattern else None
        except re.error as error:
            raise UsageError(
                f'--label-pattern {pattern} is not a regular expression ({error})'
            ) from error
        if self._pattern and 'participant' not in self._pattern.groupindex:
            raise UsageError(
                f'--label-pattern {pattern} has no group named participant; write (?P<participant>...)'
            )

    def of_study(self, patient: str, study: str) -> tuple[str, str | None]:
        """Return the labels of a study.

        Parameters
        ----------
        patient : str
            PatientID, or what the pattern is searched in.
        study : str
            StudyInstanceUID.

        Returns
        -------
        participant, session : str, str or None
        """
        known = self.content['studies'].get(study, {})
        row = self._rows.get(study) or self._rows.get(patient)
        if row:
            return row[0], row[1] or self._next_session(row[0], study, known)
        if self._pattern is not None:
            match = self._pattern.search(patient)
            if match is None:
                raise UsageError('--label-pattern does not match the PatientID of this study')
            session = match.groupdict().get('session')
            participant = check_label(match['participant'])
            if session:
                return participant, check_label(session)
            return participant, self._next_session(participant, study, known)
        participant = self.content['participants'].get(patient or study)
        if participant is None:
            used = {*self.content['participants'].values()}
            number = next(n for n in range(1, 10**6) if f'{n:03d}' not in used)
            participant = self.content['participants'][patient or study] = f'{number:03d}'
        return participant, self._next_session(participant, study, known)

    def _next_session(self, participant: str, study: str, known: dict[str, Any]) -> str:
        """Number the studies of a participant."""
        if known.get('participant') == participant:
            return str(known['session'])
        studies = self.content['studies']
        used = {s['session'] for s in studies.values() if s['participant'] == participant}
        number = next(n for n in range(1, 10**4) if f'{n:02d}' not in used)
        studies[study] = {'participant': participant, 'session': f'{number:02d}', 'files': {}}
        return f'{number:02d}'

    def reserve(self, study: str, participant: str, session: str | None) -> None:
        """Raise `UsageError` if another study has the same labels; its files would be replaced."""
        for other, entry in self.content['studies'].items():
            if other != study and (entry['participant'], entry['session']) == (
                participant,
                session,
            ):
                raise UsageError(
                    f'another study is sub-{participant} ses-{session} already; give each study a session '
                    'of its own'
                )
        self.content['studies'].setdefault(study, {'files': {}}).update(
            participant=participant, session=session
        )

    def record(self, study: str, participant: str, session: str | None, **fields: Any) -> None:
        """Keep what links a study to its files, for writing DICOM back."""
        entry = self.content['studies'].setdefault(study, {})
        entry |= {'participant': participant, 'session': session, **fields}

    def save(self) -> None:
        """Write the private file, readable by its owner only."""
        import json

        def write(partial: Path) -> None:
            partial.touch(mode=0o600)
            partial.write_text(json.dumps(self.content, indent=1) + '\n')

        write_atomically(write, self.links)


def check_label(label: str) -> str:
    """Raise `UsageError` unless a label has only letters and digits."""
    label = re.sub(r'^(sub|ses)-', '', label)
    if not LABEL.fullmatch(label):
        raise UsageError(f'the label {label!r} must contain only letters and digits')
    return label


def read_table(path: Path) -> dict[str, tuple[str, str | None]]:
    """Read the labels of a table by source.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to (str, str or None)

    Raises
    ------
    UsageError
        When the table cannot be read, lacks a column, or contains an invalid label.
    """
    text = read_text(path, UsageError, f'--labels {path}')
    rows = list(csv.DictReader(io.StringIO(text, newline=''), delimiter='\t'))
    if rows and not {'source', 'participant_id'} <= rows[0].keys():
        raise UsageError(
            f'--labels {path} has the columns {", ".join(rows[0])}; need source and participant_id, '
            'separated by tabs'
        )
    return {
        row['source'].strip(): (
            check_label(row['participant_id'].strip()),
            check_label(session) if (session := (row.get('session_id') or '').strip()) else None,
        )
        for row in rows
    }
