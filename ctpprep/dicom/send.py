# SPDX-License-Identifier: Apache-2.0
"""Send objects to a PACS, and ask it to commit itself to keeping them."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctpprep.exceptions import CtpprepError, UsageError

CALLING_AET = 'CTPPREP'
CONNECT_S, ANSWER_S, COMMIT_S = 10.0, 60.0, 10.0
# of storage commitment: the only instance of its service, and its one action
COMMITMENT_INSTANCE, REQUEST_COMMITMENT = '1.2.840.10008.1.20.1.1', 1
# type of the message that refuses an association
ASSOCIATE_RJ = 0x03
# status of an answer
SUCCESS, INVALID_ARGUMENT = 0x0000, 0x0115


@dataclass(frozen=True)
class Peer:
    """A PACS.

    Attributes
    ----------
    host : str
    port : int
    aet : str
        Its application entity title.
    calling_aet : str
        That of ctpprep.
    listen : int or None
        Port on which ctpprep waits for the answer to the request of commitment, beside the
        connection that is open.
    """

    host: str
    port: int
    aet: str
    calling_aet: str = CALLING_AET
    listen: int | None = None

    def __str__(self) -> str:
        return f'{self.aet} at {self.host} port {self.port}'

    @classmethod
    def parse(
        cls,
        host: str,
        port: str,
        aet: str,
        calling_aet: str = CALLING_AET,
        listen: int | None = None,
    ) -> 'Peer':
        """Check what a user wrote.

        Raises
        ------
        UsageError
        """
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(f'--send: the port must be a number from 1 to 65535, got {port!r}')
        if listen is not None and not 0 < listen < 65536:
            raise UsageError(f'--listen must be a port from 1 to 65535, got {listen}')
        for option, title in (('--send', aet), ('--calling-aet', calling_aet)):
            if not 0 < len(title.strip()) <= 16 or not title.isascii() or '\\' in title:
                raise UsageError(
                    f'{option}: an AE title has 1 to 16 ASCII characters without backslash, got {title!r}'
                )
        return cls(host, int(port), aet, calling_aet, listen)


@dataclass
class Delivery:
    """What happened to the objects.

    Attributes
    ----------
    peer : Peer
    n_objects, n_stored : int
    problems : list of str
        Why objects were not stored or not committed.
    commitment : str
        Answer to the request of storage commitment.
    """

    peer: Peer
    n_objects: int
    n_stored: int = 0
    problems: list[str] = field(default_factory=list)
    commitment: str = ''

    def __str__(self) -> str:
        stored = f'{self.peer} stored {self.n_stored} of {self.n_objects} objects'
        parts = [stored, *self.problems, f'storage commitment: {self.commitment}']
        return '; '.join(parts)


def send_objects(paths: Sequence[Path], peer: Peer) -> Delivery:
    """Send files by C-STORE over one association, then request storage commitment for them.

    Parameters
    ----------
    paths : sequence of Path
    peer : Peer

    Returns
    -------
    Delivery

    Raises
    ------
    CtpprepError
        When the peer cannot be reached, or refuses the association.
    """
    from pydicom import dcmread
    from pydicom.uid import generate_uid
    from pynetdicom import evt
    from pynetdicom.sop_class import StorageCommitmentPushModel

    tags = ['SOPClassUID', 'SOPInstanceUID']
    headers = [dcmread(path, stop_before_pixels=True, specific_tags=tags) for path in paths]
    delivery = Delivery(peer, len(paths))
    answer = _Answer(generate_uid())
    handlers = [(evt.EVT_N_EVENT_REPORT, answer.receive)]
    classes = {*(header.SOPClassUID for header in headers), StorageCommitmentPushModel}
    with _listen(peer, handlers), _associate(peer, sorted(classes), handlers) as association:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        stored = _store(association, paths, headers, accepted, delivery)
        if StorageCommitmentPushModel not in accepted:
            delivery.commitment = 'not supported by the peer'
        elif stored and not association.is_established:
            delivery.commitment = 'not requested: connection lost'
        elif stored:
            _commit(association, stored, answer, delivery)
        else:
            delivery.commitment = 'not requested'
    return delivery


@contextmanager
def _associate(peer: Peer, classes: Sequence[str], handlers: list[Any]) -> Iterator[Any]:
    """Open an association, and release it."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
    from pynetdicom import AE, evt

    refusals: list[str] = []

    def keep_refusal(event: Any) -> None:
        # `is_rejected` is not always set when the peer closes the connection right afterwards
        if event.data[0] == ASSOCIATE_RJ:
            refusals.append(_reason_of(event.data))

    handlers = [*handlers, (evt.EVT_DATA_RECV, keep_refusal)]
    entity = AE(peer.calling_aet)
    entity.connection_timeout = entity.acse_timeout = CONNECT_S
    entity.dimse_timeout = entity.network_timeout = ANSWER_S
    for name in classes:
        entity.add_requested_context(name, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    try:
        association: Any = entity.associate(
            peer.host, peer.port, ae_title=peer.aet, evt_handlers=handlers
        )
    except (OSError, UnicodeError) as error:  # of host names that cannot be resolved or encoded
        reason = getattr(error, 'strerror', None) or error
        raise CtpprepError(f'{peer} cannot be reached ({reason}); check the host') from error
    if refusals:
        hint = '; check the AE titles' if 'AE title' in refusals[0] else ''
        raise CtpprepError(
            f'{peer} refused the association of {peer.calling_aet} ({refusals[0]}){hint}'
        )
    if not association.is_established:
        raise CtpprepError(f'{peer} cannot be reached, or does not answer as a DICOM server')
    try:
        yield association
    finally:
        association.release()


def _reason_of(refusal: bytes) -> str:
    """Read the reason of an A-ASSOCIATE-RJ."""
    from pynetdicom.pdu import A_ASSOCIATE_RJ

    pdu = A_ASSOCIATE_RJ()
    pdu.decode(refusal)
    try:
        return pdu.reason_str
    except ValueError:
        return 'for a reason that is not in the standard'


@contextmanager
def _listen(peer: Peer, handlers: list[Any]) -> Iterator[None]:
    """Wait for the peer to open a connection for its answer, if the user named a port."""
    if peer.listen is None:
        yield
        return
    from pynetdicom import AE
    from pynetdicom.sop_class import StorageCommitmentPushModel

    entity = AE(peer.calling_aet)
    entity.require_called_aet = True
    entity.require_calling_aet = [peer.aet]
    # the peer provides the service, although it opens the connection
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    try:
        server: Any = entity.start_server(('', peer.listen), block=False, evt_handlers=handlers)
    except OSError as error:
        raise CtpprepError(
            f'--listen: port {peer.listen} is not free ({error.strerror})'
        ) from error
    try:
        yield
    finally:
        server.shutdown()


def _store(
    association: Any,
    paths: Sequence[Path],
    headers: Sequence[Any],
    accepted: set[str],
    delivery: Delivery,
) -> list[Any]:
    """Send what the peer accepts; return the headers of what it stored."""
    refused: Counter[str] = Counter()
    stored = []
    for path, header in zip(paths, headers, strict=True):
        if header.SOPClassUID not in accepted:
            refused[f'{header.SOPClassUID.name} is not accepted'] += 1
            continue
        if not association.is_established:
            refused['the connection was lost'] += 1
            continue
        status = association.send_c_store(path)
        code = status.get('Status')
        if code is None:
            refused['no answer'] += 1
        elif code == 0 or code >> 12 == 0xB:  # stored, perhaps with a warning
            stored.append(header)
        else:
            comment = str(status.get('ErrorComment', '')).strip()
            refused[f'status 0x{code:04X}{f" ({comment})" if comment else ""}'] += 1
    delivery.n_stored = len(stored)
    delivery.problems += [f'{why}: {count} not stored' for why, count in refused.items()]
    return stored


class _Answer:
    """The answer of the peer to one request of commitment, which it sends when it likes."""

    def __init__(self, transaction: str) -> None:
        self.transaction = transaction
        self.arrived = threading.Event()
        self.dataset: Any = None

    def receive(self, event: Any) -> tuple[int, None]:
        """Keep the answer; that to another request is refused."""
        dataset = event.event_information
        if dataset.get('TransactionUID') != self.transaction:
            return INVALID_ARGUMENT, None
        self.dataset = dataset
        self.arrived.set()
        return SUCCESS, None


def _commit(association: Any, stored: Sequence[Any], answer: _Answer, delivery: Delivery) -> None:
    """Request commitment, and describe the answer."""
    from pydicom import Dataset
    from pynetdicom.sop_class import StorageCommitmentPushModel

    request = Dataset()
    request.TransactionUID = answer.transaction
    request.ReferencedSOPSequence = []
    for header in stored:
        item = Dataset()
        item.ReferencedSOPClassUID = header.SOPClassUID
        item.ReferencedSOPInstanceUID = header.SOPInstanceUID
        request.ReferencedSOPSequence.append(item)
    status, _ = association.send_n_action(
        request, REQUEST_COMMITMENT, StorageCommitmentPushModel, COMMITMENT_INSTANCE
    )
    if status.get('Status') != 0:
        code = status.get('Status')
        shown = 'no answer' if code is None else f'status 0x{code:04X}'
        delivery.commitment = f'refused by the peer ({shown})'
    elif not answer.arrived.wait(COMMIT_S):
        hint = (
            ''
            if delivery.peer.listen
            else '; if it answers on a connection of its own, use --listen'
        )
        delivery.commitment = f'requested, no answer within {COMMIT_S:g} s{hint}'
    else:
        committed = {
            item.ReferencedSOPInstanceUID
            for item in answer.dataset.get('ReferencedSOPSequence', [])
        }
        n_committed = sum(header.SOPInstanceUID in committed for header in stored)
        delivery.commitment = f'confirmed for {n_committed} of {len(stored)}'
        if n_committed < len(stored):
            delivery.problems.append(f'{len(stored) - n_committed} not committed')
