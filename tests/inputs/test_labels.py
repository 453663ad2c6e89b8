# SPDX-License-Identifier: Apache-2.0
"""Labels are checked against the known ones, and errors suggest the nearest."""

import pytest

from ctpprep.exceptions import UsageError
from ctpprep.inputs.labels import match_labels, refuse_unknown


def test_labels_are_sorted_without_duplicates():
    assert match_labels(['2', '1', '2'], ['1', '2', '3'], 'run-', 'the dataset') == ['1', '2']


@pytest.mark.parametrize(
    ('known', 'hint'),
    [
        (['acute', 'day1'], 'did you mean ses-acute?'),
        (['x', 'y'], 'it has ses-x, ses-y'),
        ([], 'it has no ses-<label>'),
    ],
)
def test_error_of_an_unknown_label_has_a_hint(known, hint):
    with pytest.raises(UsageError) as error:
        match_labels(['akute'], known, 'ses-', 'the dataset')
    assert str(error.value) == f'ses-akute is not in the dataset; {hint}'


def test_error_of_an_unknown_word_lists_the_known_ones():
    with pytest.raises(UsageError, match="file: there is no 'x'; known are ctp, ncct"):
        refuse_unknown('x', ['ctp', 'ncct'], 'file')
