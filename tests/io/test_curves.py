# SPDX-License-Identifier: Apache-2.0
"""Tables of arterial and venous curves."""

import pytest

from ctpprep.exceptions import SeriesError
from ctpprep.io.curves import read_curves

CURVE = 'time\taif\n' + ''.join(f'{1.5 * i}\t{200 if i == 4 else 0}\n' for i in range(12))


def curve_file(folder, text=CURVE):
    path = folder / 'my.tsv'
    path.write_text(text)
    return path


def test_curves_are_read_with_or_without_a_vof(tmp_path):
    assert set(read_curves(curve_file(tmp_path))) == {'time', 'aif'}
    with_vof = CURVE.replace('aif', 'aif\tvof').replace('0\n', '0\t1\n')
    curves = read_curves(curve_file(tmp_path, with_vof))
    assert set(curves) == {'time', 'aif', 'vof'}
    assert curves['time'][:2] == [0, 1.5]
    assert curves['aif'][4] == 200


def test_vof_with_only_missing_values_is_ignored(tmp_path):
    text = CURVE.replace('aif', 'aif\tvof').replace('0\n', '0\tn/a\n')
    assert set(read_curves(curve_file(tmp_path, text))) == {'time', 'aif'}


@pytest.mark.parametrize(('old', 'new', 'sentence'), [
    ('time', 'seconds', r'my.tsv has no column time \(columns found: seconds, aif\), need'),
    ('\t', ',', r'no column time \(columns found: time,aif\)'),
    ('3.0\t', '1.5\t', 'time must increase .* is 1.5 s in line 3 and 1.5 s in line 4'),
    ('6.0\t200', '6.0\tn/a', "my.tsv: aif in line 6 is 'n/a', need a number"),
    (CURVE[27:], '', r'my.tsv has \d rows, need at least 5 samples'),
    (CURVE, '', r'no column time \(columns found: none\)'),
])  # fmt: skip
def test_invalid_table_raises_an_error_with_file_field_found_and_needed(
    tmp_path, old, new, sentence
):
    path = curve_file(tmp_path, CURVE.replace(old, new))
    with pytest.raises(SeriesError, match=sentence):
        read_curves(path)
