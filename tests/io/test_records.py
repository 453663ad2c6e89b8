# SPDX-License-Identifier: Apache-2.0
"""Records of complete outputs: what is missing or has changed."""

from ctpprep.io.records import find_change, make_record, read_entries


def test_change_names_the_file(tmp_path):
    for name in ('a.tsv', 'b.nii'):
        (tmp_path / name).write_text(name)
    record = make_record(tmp_path.iterdir(), tmp_path)
    assert find_change(record, tmp_path) == ''
    (tmp_path / 'b.nii').write_text('other')
    assert find_change(record, tmp_path) == 'b.nii has changed since its run'
    assert find_change(record, tmp_path, ending='.tsv') == ''
    (tmp_path / 'b.nii').unlink()
    assert find_change(record, tmp_path, ending='.tsv') == 'b.nii is gone'


def test_damaged_status_has_no_entries(tmp_path):
    path = tmp_path / 'status.json'
    for text in ('', '[]', '{"Series": 3}', '{"Series": [1]}', '{"Series": [{"State": "x"}]}'):
        path.write_text(text)
        assert read_entries(path) == {}
