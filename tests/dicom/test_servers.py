# SPDX-License-Identifier: Apache-2.0
"""Sending to real servers on this machine: storescp of dcmtk, and Orthanc."""

import io
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

pydicom = pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')
pytest.importorskip('pynetdicom', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom.send import Peer, send_objects  # noqa: E402
from ctpprep.exceptions import CtpprepError  # noqa: E402
from tests.dicom.results import PREFIX, convert, draw_summary, find_program, run  # noqa: E402

pytestmark = pytest.mark.dicom
# pynetdicom has a storescp as well
STORESCP = shutil.which('storescp', path='/usr/local/bin:/usr/bin')
ORTHANC = find_program('Orthanc')
needs_storescp = pytest.mark.skipif(STORESCP is None, reason='needs storescp (dcmtk)')
needs_orthanc = pytest.mark.skipif(ORTHANC is None, reason='needs Orthanc')


def free_port():
    with socket.socket() as connection:
        connection.bind(('127.0.0.1', 0))
        return connection.getsockname()[1]


@contextmanager
def server(command, port):
    """Run a server until it is not needed any more."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            assert process.poll() is None, f'{command[0]} ended with {process.returncode}'
            try:
                socket.create_connection(('127.0.0.1', port), 0.2).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp('servers')
    convert(folder)
    draw_summary(folder)
    return folder


def written(folder):
    datasets = [pydicom.dcmread(path) for path in (folder / 'dicom' / PREFIX).glob('*.dcm')]
    return {ds.SOPInstanceUID: ds for ds in datasets}


def pixels_of(dataset):
    return dataset.pixel_array if 'Rows' in dataset else np.zeros(0)


def assert_same(received, sent):
    """Compare everything that another transfer syntax leaves as it is."""
    assert received.keys() == sent.keys()
    for uid, dataset in sent.items():
        other = received[uid]
        np.testing.assert_array_equal(pixels_of(other), pixels_of(dataset))
        assert {e.tag for e in other} == {e.tag for e in dataset}
        assert other.SOPClassUID == dataset.SOPClassUID


@needs_storescp
@pytest.mark.parametrize('syntax', ['+xa', '+xi'])  # explicit or implicit VR
def test_storescp_receives_every_object(syntax, results, tmp_path, capsys):
    port = free_port()
    command = [STORESCP, syntax, '-od', str(tmp_path), '-aet', 'STORE', str(port)]
    with server(command, port):
        assert run(results, '--send', '127.0.0.1', str(port), 'STORE') == 0
    assert 'storage commitment: not supported by the peer' in capsys.readouterr().out
    received = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, tmp_path.iterdir())}
    assert_same(received, written(results))


@needs_storescp
def test_a_peer_that_refuses_is_named(results, tmp_path, capsys):
    port = free_port()
    with server([STORESCP, '--refuse', '-od', str(tmp_path), str(port)], port):
        assert run(results, '--send', '127.0.0.1', str(port), 'STORE') == 1
    assert f'FAILED: STORE at 127.0.0.1 port {port} refused' in capsys.readouterr().out


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_refusal_for_an_unknown_reason_is_one(results):
    paths = [next(path for path in (results / 'src').rglob('*') if path.is_file())]
    with socket.create_server(('127.0.0.1', 0)) as listener:

        def refuse():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(bytes([3, 0, 0, 0, 0, 4, 0, 1, 1, 99]))  # A-ASSOCIATE-RJ

        threading.Thread(target=refuse, daemon=True).start()
        peer = Peer('127.0.0.1', listener.getsockname()[1], 'ODD')
        with pytest.raises(CtpprepError, match=r'refused .* a reason that is not in the standard'):
            send_objects(paths, peer)


@pytest.fixture(scope='module')
def orthanc(tmp_path_factory):
    """Ports of a running Orthanc, which answers requests of commitment on the third."""
    folder = tmp_path_factory.mktemp('orthanc')
    dicom, http, answers = free_port(), free_port(), free_port()
    settings = {
        'StorageDirectory': str(folder / 'db'), 'IndexDirectory': str(folder / 'db'),
        'DicomAet': 'ORTHANC', 'DicomCheckCalledAet': True, 'DicomPort': dicom, 'HttpPort': http,
        'RemoteAccessAllowed': False, 'AuthenticationEnabled': False, 'Plugins': [],
        'DicomModalities': {'here': ['CTPPREP', '127.0.0.1', answers]},
    }  # fmt: skip
    (folder / 'orthanc.json').write_text(json.dumps(settings))
    with server([ORTHANC, str(folder / 'orthanc.json')], dicom):
        yield dicom, http, answers


def fetch(http, path):
    # without the proxy that the environment may name
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f'http://127.0.0.1:{http}/{path}') as answer:
        return answer.read()


@needs_orthanc
def test_orthanc_commits_itself_to_every_object_and_returns_it(orthanc, results, capsys):
    dicom, http, answers = orthanc
    target = ['--send', '127.0.0.1', str(dicom), 'ORTHANC', '--listen', str(answers)]
    assert run(results, *target) == 0
    assert 'storage commitment: confirmed for 10 of 10' in capsys.readouterr().out
    stored = [
        pydicom.dcmread(io.BytesIO(fetch(http, f'instances/{name}/file')))
        for name in json.loads(fetch(http, 'instances'))
    ]
    assert_same({ds.SOPInstanceUID: ds for ds in stored}, written(results))
    (study,) = json.loads(fetch(http, 'studies'))
    assert len(json.loads(fetch(http, f'studies/{study}'))['Series']) == 5


@needs_orthanc
def test_a_wrong_title_is_refused_in_one_sentence(orthanc, results, capsys):
    assert run(results, '--send', '127.0.0.1', str(orthanc[0]), 'OTHER') == 1
    assert 'Called AE title not recognised' in capsys.readouterr().out


@needs_orthanc
def test_every_refusal_is_seen_even_if_the_connection_closes_at_once(orthanc, results):
    paths = [next(path for path in (results / 'src').rglob('*') if path.is_file())]
    for _ in range(60):  # one in twenty was missed when the state of the association was read
        with pytest.raises(CtpprepError, match='Called AE title not recognised'):
            send_objects(paths, Peer('127.0.0.1', orthanc[0], 'OTHER'))
