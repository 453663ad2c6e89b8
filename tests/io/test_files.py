# SPDX-License-Identifier: Apache-2.0
"""Files are written completely or not at all, leftovers are removed, and locks make calls wait."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ctpprep.exceptions import UsageError
from ctpprep.io.files import (
    absolute,
    digest,
    file_lock,
    read_object,
    remove_older,
    remove_partials,
    write_atomically,
    write_json,
)


def test_failed_write_leaves_no_file(tmp_path):
    def fail(partial):
        partial.write_text('half')
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        write_atomically(fail, tmp_path / 'a' / 'file.txt')
    assert list((tmp_path / 'a').iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path):
    write_json({'old': 1}, tmp_path / 'file.json')
    with pytest.raises(TypeError):
        write_atomically(lambda partial: partial.write_text(1), tmp_path / 'file.json')
    assert json.loads((tmp_path / 'file.json').read_text()) == {'old': 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_reader_never_sees_a_partial_file(tmp_path):
    path = tmp_path / 'file.txt'

    def write(partial):
        partial.write_text('complete')
        assert not path.exists()
        assert partial.name.startswith('.partial-')
        assert partial.name.endswith('file.txt')  # nibabel chooses the format by the extension

    write_atomically(write, path)
    assert path.read_text() == 'complete'


def test_concurrent_writers_leave_one_complete_file(tmp_path):
    """Parallel calls write the description of a common folder while another reads it."""
    path = tmp_path / 'shared.json'
    contents = [{'writer': number, 'text': 50000 * str(number)} for number in range(4)]
    write_json(contents[0], path)
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write_json, contents[n % 4], path) for n in range(60)]
        while not all(writer.done() for writer in writers):
            assert json.loads(path.read_text()) in contents
    for writer in writers:
        writer.result()
    assert [file.name for file in tmp_path.iterdir()] == ['shared.json']


def test_leftovers_of_killed_runs_are_removed_but_not_files_of_other_calls(tmp_path):
    leftovers = ['sub-1/ct/.partial-ab-sub-1_cbf.nii.gz', '.partial-ab-sub-1.html', '.partial-old']
    others = ['sub-2/ct/.partial-cd-sub-2_cbf.nii.gz', '.partial-cd-dataset_description.json']
    for name in (*leftovers, *others, 'sub-1/ct/sub-1_cbf.nii.gz'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.utime(tmp_path / '.partial-old', (1, 1))
    remove_partials(tmp_path, ['1'])
    assert not [name for name in leftovers if (tmp_path / name).exists()]
    assert all((tmp_path / name).exists() for name in (*others, 'sub-1/ct/sub-1_cbf.nii.gz'))


def test_only_files_of_an_earlier_run_are_removed(tmp_path):
    old, new, missing = (tmp_path / name for name in ('old', 'new', 'missing'))
    for path, time in ((old, 100), (new, 300)):
        path.touch()
        os.utime(path, (time, time))
    assert remove_older([old, new, missing], 200) == [old]
    assert new.exists()
    assert not old.exists()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"a": ', 'my.json cannot be read as JSON'),
        ('[1]', 'my.json contains a JSON list, need an object'),
        (None, r'my.json cannot be read .*No such file'),
    ],
)
def test_error_of_a_file_without_a_json_object_names_the_file(tmp_path, text, message):
    path = tmp_path / 'my.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_object(path, UsageError)
    with pytest.raises(UsageError, match=r'^the sidecar'):
        read_object(path, UsageError, 'the sidecar')


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / 'my.json').write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(tmp_path / 'my.json', UsageError) == {'a': 1}


def test_parent_of_a_symlink_is_that_of_its_target(tmp_path):
    (tmp_path / 'deep' / 'target').mkdir(parents=True)
    (tmp_path / 'link').symlink_to(tmp_path / 'deep' / 'target')
    assert absolute(tmp_path / 'link' / '..' / 'x') == tmp_path.resolve() / 'deep' / 'x'


def test_digest_is_the_sha256(tmp_path):
    (tmp_path / 'file').write_bytes(b'abc')
    assert digest(tmp_path / 'file').startswith('ba7816bf8f01cfea')


# -- locks


def test_second_call_waits_for_the_lock(tmp_path):
    entered = threading.Event()

    def enter():
        with file_lock(tmp_path, 'x'):
            entered.set()

    call = threading.Thread(target=enter)
    with file_lock(tmp_path, 'x'):
        call.start()
        assert not entered.wait(0.2)
    assert entered.wait(5)
    call.join()


def test_lock_file_remains(tmp_path):
    with file_lock(tmp_path, 'x'):
        pass
    assert (tmp_path / 'logs' / 'x.lock').exists()


def test_lock_file_of_another_user_may_be_read_only(tmp_path, monkeypatch):
    with file_lock(tmp_path, 'x'):
        pass
    original = os.open

    def refuse_writing(path, flags, *args):
        if flags & os.O_RDWR:
            raise PermissionError(13, os.strerror(13))
        return original(path, flags, *args)

    monkeypatch.setattr(os, 'open', refuse_writing)
    with file_lock(tmp_path, 'x'):
        pass
    with pytest.raises(PermissionError), file_lock(tmp_path, 'new'):
        pass


def test_file_system_without_locks_is_no_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr('ctpprep.io.files.fcntl.flock', refuse)
    with file_lock(tmp_path, 'x'):
        pass
