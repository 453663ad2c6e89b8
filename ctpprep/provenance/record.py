# SPDX-License-Identifier: Apache-2.0
"""What a run did, as one PROV graph in JSON-LD: files, steps, parameters, software.

The graph is read from the results that nipype leaves in the work folder, so it tells what steps were
given and gave, not what the workflow meant to do. Names of keys follow the draft of BIDS
provenance (BEP028); the document is flat and holds its own context: nothing is looked up.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nipype.pipeline.engine import Workflow
from nipype.pipeline.engine.utils import load_resultfile

from ctpprep import __version__
from ctpprep.engine.hashes import hash_file
from ctpprep.inputs.series import Series
from ctpprep.io.bids import bids_uri, with_sidecars
from ctpprep.io.description import read_container
from ctpprep.io.files import write_json
from ctpprep.settings import MethodSettings, RunSettings, flatten

FOLDER = 'prov'
LONGEST = 1000  # characters of a parameter; longer ones are told by their SHA-256
ANTS_MODULE = 'ctpprep.interfaces.registration'


def context(run_uuid: str) -> dict[str, Any]:
    """Give the JSON-LD context of a run's graph.

    Parameters
    ----------
    run_uuid : str
        Distinguishes the steps and intermediate files of runs whose graphs are joined.
    """

    def link(name: str) -> dict[str, str]:
        return {'@id': name, '@type': '@id'}

    def time(name: str) -> dict[str, str]:
        return {'@id': name, '@type': 'xsd:dateTime'}

    return {
        '@version': 1.1,
        'prov': 'http://www.w3.org/ns/prov#',
        'rdfs': 'http://www.w3.org/2000/01/rdf-schema#',
        'xsd': 'http://www.w3.org/2001/XMLSchema#',
        'dcterms': 'http://purl.org/dc/terms/',
        'ctpprep': 'urn:ctpprep:',
        'input': 'urn:ctpprep:input:',
        'parameter': 'urn:ctpprep:parameter:',
        'measured': 'urn:ctpprep:measured:',
        'run': f'urn:ctpprep:run:{run_uuid}:',
        'Id': '@id',
        'Type': '@type',
        'Entity': 'prov:Entity',
        'Activity': 'prov:Activity',
        'Software': 'prov:SoftwareAgent',
        'Label': 'rdfs:label',
        'AtLocation': 'prov:atLocation',
        'GeneratedBy': link('prov:wasGeneratedBy'),
        'DerivedFrom': link('prov:wasDerivedFrom'),
        'AlternateOf': link('prov:alternateOf'),
        'Used': link('prov:used'),
        'AssociatedWith': link('prov:wasAssociatedWith'),
        'StartedAtTime': time('prov:startedAtTime'),
        'EndedAtTime': time('prov:endedAtTime'),
        'PartOf': link('dcterms:isPartOf'),
        'Version': 'ctpprep:version',
        'Container': 'ctpprep:container',
        'Command': 'ctpprep:command',
        'Quantity': 'ctpprep:quantity',
        'SHA256': 'ctpprep:sha256',
        'Size': 'ctpprep:size',
        'Status': 'ctpprep:status',
        'FailedSeries': 'ctpprep:failedSeries',
    }


@dataclass(frozen=True)
class RanStep:
    """A step that has run, as nipype recorded it.

    Attributes
    ----------
    name : str
        Names of the workflows around it and its own, such as 'sub_01_wf/.../deconvolve'.
    command : str
        Its interface.
    began, ended : datetime
    inputs, outputs : dict
        By port; empty outputs where it failed.
    failed : bool
    """

    name: str
    command: str
    began: datetime
    ended: datetime
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    failed: bool

    @property
    def writes(self) -> bool:
        """Whether it copies files to the output folder."""
        return 'written' in self.outputs


def read_steps(workflow: Workflow, began: float) -> list[RanStep]:
    """List the steps whose results this run made or took from the work folder.

    A result counts if it was made since the run began, or if a step that counts was given one of its
    files. What else an earlier run left in the work folder does not.

    Parameters
    ----------
    workflow : Workflow
        That has run.
    began : float
        Start of the run, s since the epoch.

    Returns
    -------
    list of RanStep
        In the order of their start.
    """
    found = {}
    for full_name in workflow.list_node_names():
        parts = full_name.split('.')
        home = _base(workflow).joinpath(*parts)
        result = home / f'result_{parts[-1]}.pklz'
        if result.is_file() and (step := _read_step(result, '/'.join(parts))):
            found[home] = replace(step, inputs=step.inputs | _given_now(workflow, full_name, step))
    counted: dict[Path, RanStep] = {}
    waiting = [home for home, step in found.items() if step.began.timestamp() >= began]
    while waiting:
        home = waiting.pop()
        if home not in counted:
            counted[home] = found[home]
            makers = {Path(path).parent for _, path in _paths(found[home].inputs)}
            waiting += [maker for maker in makers if maker in found]
    return sorted(counted.values(), key=lambda step: (step.began, step.name))


def _base(workflow: Workflow) -> Path:
    """Folder of the nodes, as nipype writes it in their results: without links and '..'."""
    return Path(workflow.base_dir, workflow.name).resolve()


def _given_now(workflow: Workflow, name: str, step: RanStep) -> dict[str, Any]:
    """Give the inputs from outside of the graph as this run names them.

    A reused step recorded the paths of its own run: the same content, perhaps by another name or
    from a folder that is gone.
    """
    given = workflow.get_node(name).inputs.get_traitsfree()
    return {port: value for port, value in given.items() if port in step.inputs}


def _read_step(path: Path, name: str) -> RanStep | None:
    """Read a result of nipype; None if it cannot be read, as after a crash while writing."""
    try:
        result = load_resultfile(str(path))
        runtime = result.runtime
        times = [datetime.fromisoformat(each) for each in (runtime.startTime, runtime.endTime)]
    except Exception:  # whatever unpickling may raise
        return None
    began, ended = (each if each.tzinfo else each.replace(tzinfo=UTC) for each in times)
    outputs = result.outputs.get_traitsfree() if result.outputs is not None else {}
    interface = result.interface
    return RanStep(
        name, f'{interface.__module__}.{interface.__name__}', began, ended,
        dict(result.inputs or {}), dict(outputs), result.outputs is None,
    )  # fmt: skip


def _paths(value: Any, port: str = '') -> Iterator[tuple[str, str]]:
    """List the absolute paths in a value with the port, or the key, that holds each."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _paths(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _paths(inner, port)
    elif isinstance(value, str | Path) and Path(value).is_absolute():
        yield port, str(value)


def _parameter(value: Any) -> Any:
    """Write a parameter as one literal; lists as JSON, since RDF knows no order."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = json.dumps(value, default=str)
    if len(text) <= LONGEST:
        return text
    return f'sha256:{hashlib.sha256(text.encode()).hexdigest()}'


def _word(name: str) -> str:
    return re.sub(r'\W', '_', name)


class _Graph:
    """The records of one run."""

    def __init__(
        self, series: Sequence[Series], run: RunSettings, base: Path, began: float
    ) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.run, self.base, self.began = run, base, began
        self.given = {
            str(file.path): (file.uri, name)
            for each in series
            for name, file in each.files.items()
        }
        self.ids: dict[str, str] = {}  # of files, by their paths

    def file(self, path: str, quantity: str = '', **links: Any) -> str | None:
        """Add a file, or add to what is known of it; return its id, None if it is not there."""
        if (known := self.ids.get(path)) is not None:
            self.records[known] |= links
            return known
        where = Path(path)
        if not where.is_file():
            return None
        label = where.name
        if path in self.given:
            identity, quantity = self.given[path]
        elif where.is_relative_to(self.run.output_dir):
            identity = bids_uri('', where.relative_to(self.run.output_dir))
        elif where.is_relative_to(self.base):
            identity = f'run:{where.relative_to(self.base).as_posix()}'
        else:  # its folder is nobody's business
            identity = f'run:elsewhere/{str(hash_file(where))[:12]}/{where.name}'
        record = {'Id': identity, 'Type': 'Entity', 'Label': label}
        if identity.startswith('bids:'):
            record['AtLocation'] = identity
        if quantity:
            record['Quantity'] = quantity
        size = where.stat().st_size
        self.ids[path] = identity
        self.records[identity] = record | {'SHA256': hash_file(where), 'Size': size} | links
        return identity

    def step(self, step: RanStep, agents: list[str]) -> None:
        """Add a step with the files it was given and those it made."""
        identity = f'run:{step.name}'
        used: dict[str, str] = {}
        parameters: dict[str, Any] = {}
        settings = flatten(step.inputs.get('settings') or {})
        for name, value in settings.items():
            parameters[f'parameter:{_word(name)}'] = _parameter(value)
        for port, value in step.inputs.items():
            if port == 'settings' or (step.writes and port in ('rows', 'output_dir', 'folder')):
                continue
            inside = list(_paths(value, port))
            for name, path in inside:
                # one port may bring several files, such as figures
                if (entity := self.file(path)) is not None:
                    used.setdefault(entity, name)
            if not inside and value is not None:
                parameters[f'parameter:{_word(port)}'] = _parameter(value)
        status = 'reused' if step.began.timestamp() < self.began else 'finished'
        record: dict[str, Any] = {
            'Id': identity, 'Type': 'Activity', 'Label': step.name.rpartition('/')[2],
            'Command': step.command, 'Status': 'failed' if step.failed else status,
            'StartedAtTime': step.began.isoformat(), 'EndedAtTime': step.ended.isoformat(),
            'PartOf': 'run:ctpprep', 'AssociatedWith': agents, 'Used': sorted(used),
        }  # fmt: skip
        for entity, name in used.items():
            record.setdefault(f'input:{_word(name)}', []).append({'Id': entity})
        self.records[identity] = record | parameters
        if step.writes:
            self._written(step, identity)
            return
        for port, path in _paths(step.outputs):
            self.file(path, port, GeneratedBy=identity, DerivedFrom=sorted(used))
            if path.endswith('.json') and port != 'viewer':  # it holds images
                self.records[identity] |= _measured(Path(path))

    def _written(self, step: RanStep, identity: str) -> None:
        """Add the files of the output folder: each comes from one file of the work folder."""
        written = {str(path) for path in step.outputs['written']}
        for row in step.inputs.get('rows', ()):
            path = str(Path(self.run.output_dir, row['path']))
            if path not in written:
                continue
            source = self.ids.get(str(step.inputs[row['name']]))
            made_by = {'GeneratedBy': identity}
            self.file(path, row['name'], **made_by, DerivedFrom=source, AlternateOf=source)
            told = [step.inputs.get(port) for port in (*row['facts'], *row['fields'])]
            facts = sorted({self.ids[str(each)] for each in told if str(each) in self.ids})
            for beside in with_sidecars(Path(path))[1:]:
                self.file(str(beside), **made_by, DerivedFrom=facts or source)
        drawn = [step.inputs.get(port) for port in ('figures', 'viewer')]
        by_name = {Path(path).name: path for _, path in _paths([each for each in drawn if each])}
        for path in written:
            if source := self.ids.get(by_name.get(Path(path).name, '')):
                self.file(
                    path, 'figure', GeneratedBy=identity, DerivedFrom=source, AlternateOf=source
                )


def _measured(path: Path) -> dict[str, Any]:
    """Read what a step measured: single values and short lists of its JSON file."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        f'measured:{_word(name)}': _parameter(value)
        for name, value in content.items()
        if value is not None and not isinstance(value, dict) and len(str(value)) <= LONGEST
    }


def write_provenance(
    workflow: Workflow,
    series: Sequence[Series],
    method: MethodSettings,
    run: RunSettings,
    began: float,
    software: Mapping[str, str],
    failed: Sequence[str] = (),
) -> Path:
    """Write the graph of a run to ``prov/``.

    Files of the dataset, of the input and of the work folder are hashed once each. Neither
    folders, users nor hosts are told: files are named by BIDS URIs or relative to the work folder.

    Parameters
    ----------
    workflow : Workflow
        That has run.
    series : sequence of CTPSeries and PrecomputedMaps
    method : MethodSettings
    run : RunSettings
    began : float
        Start of the run, s since the epoch.
    software : mapping of str to str
        Versions by name; ``ctpprep`` and ``antspyx`` among them.
    failed : sequence of str
        Prefixes of the series that failed.

    Returns
    -------
    Path
    """
    agents = {name: f'run:software/{_word(name)}' for name in software}
    base = _base(workflow)
    graph = _Graph(series, run, base, began)
    for name, version in software.items():
        graph.records[agents[name]] = {
            'Id': agents[name], 'Type': 'Software', 'Label': name, 'Version': version,
        }  # fmt: skip
    graph.records[agents['ctpprep']]['Version'] = __version__
    if container := read_container():
        graph.records[agents['ctpprep']]['Container'] = f'{container["Type"]}:{container["Tag"]}'
    settings = {f'parameter:{name}': _parameter(value) for name, value in method.flat().items()}
    graph.records['run:ctpprep'] = {
        'Id': 'run:ctpprep', 'Type': 'Activity', 'Label': 'ctpprep',
        'StartedAtTime': datetime.fromtimestamp(began, UTC).isoformat(),
        'EndedAtTime': datetime.now(UTC).isoformat(),
        'AssociatedWith': list(agents.values()), 'FailedSeries': list(failed),
    } | settings  # fmt: skip
    for step in read_steps(workflow, began):
        names = ['ctpprep', *(['antspyx'] if step.command.startswith(ANTS_MODULE) else [])]
        graph.step(step, [agents[name] for name in names if name in agents])
    path = run.output_dir / FOLDER / f'run-{run.run_uuid}_prov.jsonld'
    # empty links would be noise
    records = [
        {key: value for key, value in record.items() if value not in (None, [])}
        for record in graph.records.values()
    ]
    write_json({'@context': context(run.run_uuid), '@graph': records}, path)
    return path
