# SPDX-License-Identifier: Apache-2.0
"""Sending objects, against a server in this process that refuses what a test wants."""

import socket
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

pydicom = pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')
pynetdicom = pytest.importorskip('pynetdicom', reason='needs the extra ctpprep[dicom]')

from pynetdicom import evt  # noqa: E402
from pynetdicom.sop_class import (  # noqa: E402
    EnhancedSRStorage,
    ParametricMapStorage,
    SegmentationStorage,
    StorageCommitmentPushModel,
)

from ctpprep.dicom import send  # noqa: E402
from ctpprep.dicom.send import Peer, send_objects  # noqa: E402
from ctpprep.exceptions import CtpprepError, UsageError  # noqa: E402
from tests.dicom.results import PREFIX, convert, run  # noqa: E402

OBJECTS = (SegmentationStorage, ParametricMapStorage, EnhancedSRStorage)
COMMITTING = (*OBJECTS, StorageCommitmentPushModel)


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp('send')
    convert(folder)
    assert run(folder) == 0
    return sorted((folder / 'dicom' / PREFIX).iterdir())


@contextmanager
def peer_that(accepts=OBJECTS, store=None, act=None):
    """Start a server; `store` and `act` answer C-STORE and N-ACTION."""
    received = []

    def keep(event):
        received.append(event.request.AffectedSOPInstanceUID)
        return 0x0000 if store is None else store(event)

    entity = pynetdicom.AE('PACS')
    entity.require_called_aet = True
    for name in accepts:
        entity.add_supported_context(name)
    handlers = [(evt.EVT_C_STORE, keep), (evt.EVT_N_ACTION, act)][: 1 + (act is not None)]
    server = entity.start_server(('127.0.0.1', 0), block=False, evt_handlers=handlers)
    try:
        yield Peer('127.0.0.1', server.server_address[1], 'PACS'), received
    finally:
        server.shutdown()


def uids(paths):
    return {pydicom.dcmread(path).SOPInstanceUID for path in paths}


def test_every_object_arrives(paths):
    with peer_that() as (peer, received):
        delivery = send_objects(paths, peer)
    assert {*received} == uids(paths)
    assert delivery.problems == []
    assert 'stored 8 of 8 objects; storage commitment: not supported' in str(delivery)


def test_a_class_that_the_peer_does_not_accept_is_named(paths):
    with peer_that(accepts=[SegmentationStorage, EnhancedSRStorage]) as (peer, received):
        delivery = send_objects(paths, peer)
    assert len(received) == 2
    assert delivery.problems == ['Parametric Map Storage is not accepted: 6 not stored']


def test_a_full_peer_is_named_by_its_status(paths):
    with peer_that(store=lambda event: 0xA700) as (peer, _):
        delivery = send_objects(paths, peer)
    assert delivery.problems == ['status 0xA700: 8 not stored']
    assert delivery.commitment == 'not supported by the peer'


def test_a_stored_object_with_a_warning_is_stored(paths):
    with peer_that(store=lambda event: 0xB007) as (peer, _):
        assert send_objects(paths, peer).n_stored == 8


def report_of(request, transaction, n_lost):
    """Arguments of the report that the peer stored all but some objects."""
    report = pydicom.Dataset()
    report.TransactionUID = transaction
    report.ReferencedSOPSequence = request.ReferencedSOPSequence[n_lost:]
    return report, 1 + (n_lost > 0), StorageCommitmentPushModel, '1.2.840.10008.1.20.1.1'


@pytest.mark.parametrize(
    ('n_lost', 'answer'), [(0, 'confirmed for 8 of 8'), (1, 'confirmed for 7 of 8')]
)
def test_commitment_is_what_the_peer_answers_to_this_request(n_lost, answer, paths):
    statuses = []

    def act(event):
        request = event.action_information

        def report():
            for reported in (
                report_of(request, '1.2.3', 1 - n_lost),  # to a request of somebody else
                report_of(request, request.TransactionUID, n_lost),
            ):
                status, _ = event.assoc.send_n_event_report(*reported)
                statuses.append(status.Status)

        # the reports follow the answer to the request, on the same connection
        threading.Timer(0.2, report).start()
        return 0x0000, None

    with peer_that(accepts=COMMITTING, act=act) as (peer, _):
        delivery = send_objects(paths, peer)
    assert statuses[0] == 0x0115
    assert delivery.commitment == answer
    assert delivery.problems == (['1 not committed'] if n_lost else [])


def test_an_answer_on_another_connection_must_be_of_the_peer(paths):
    rejected = {}
    with socket.socket() as connection:
        connection.bind(('127.0.0.1', 0))
        listen = connection.getsockname()[1]

    def act(event):
        for calling, called in (('PACS', 'CTPPREP'), ('OTHER', 'CTPPREP'), ('PACS', 'OTHER')):
            entity = pynetdicom.AE(calling)
            entity.add_requested_context(StorageCommitmentPushModel)
            association = entity.associate('127.0.0.1', listen, ae_title=called)
            rejected[calling, called] = association.is_rejected
            association.abort()
        return 0x0110, None

    with peer_that(accepts=COMMITTING, act=act) as (peer, _):
        send_objects(paths, replace(peer, listen=listen))
    assert [*rejected.values()] == [False, True, True]


def test_no_commitment_is_requested_on_a_lost_connection(paths, monkeypatch):
    monkeypatch.setattr(send, 'ANSWER_S', 1.0)
    stored = []

    def store(event):
        stored.append(event)
        if len(stored) == 3:
            event.assoc.abort()
        return 0x0000

    with peer_that(accepts=COMMITTING, store=store) as (peer, _):
        delivery = send_objects(paths, peer)
    assert delivery.n_stored == 2
    assert delivery.commitment == 'not requested: connection lost'


def test_a_refused_request_of_commitment_is_stated(paths):
    with peer_that(accepts=COMMITTING, act=lambda event: (0x0110, None)) as (peer, _):
        delivery = send_objects(paths, peer)
    assert delivery.commitment == 'refused by the peer (status 0x0110)'
    assert delivery.n_stored == 8


def test_another_title_is_refused(paths):
    with peer_that() as (peer, _):
        other = Peer(peer.host, peer.port, 'OTHER')
        with pytest.raises(CtpprepError, match='refused the association of CTPPREP'):
            send_objects(paths, other)


def test_a_peer_that_is_not_there_is_named(paths):
    with socket.socket() as connection:
        connection.bind(('127.0.0.1', 0))
        port = connection.getsockname()[1]
    with pytest.raises(CtpprepError, match=f'PACS at 127.0.0.1 port {port} cannot be reached'):
        send_objects(paths, Peer('127.0.0.1', port, 'PACS'))


@pytest.mark.parametrize('host', ['pacs.invalid', 'a' * 64])
def test_a_host_that_cannot_be_resolved_is_named(host, paths):
    with pytest.raises(CtpprepError, match=f'PACS at {host} port 104 cannot be reached'):
        send_objects(paths, Peer(host, 104, 'PACS'))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('host', '0', 'PACS'), 'port must be a number from 1 to 65535'),
        (('host', 'dicom', 'PACS'), "got 'dicom'"),
        (('host', '104', 'A' * 17), '1 to 16 ASCII characters'),
    ],
)
def test_what_cannot_be_a_peer_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        Peer.parse(*arguments)
