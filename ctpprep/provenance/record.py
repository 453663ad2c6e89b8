# SPDX-License-Identifier: Apache-2.0
"""Files, steps, parameters and software of a run, as a PROV graph in JSON-LD.

The graph is read from the results that nipype leaves in the work folder, so it contains the actual
inputs and outputs of the steps. Names of keys follow the draft of BIDS provenance (BEP028). The
document is flat and contains its own context, so that nothing must be looked up.
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
LONGEST = 1000  # characters of a parameter; longer ones are replaced by their SHA-256
ANTS_MODULE = 'ctpprep.interfaces.registration'


def context(run_uuid: str) -> dict[str, Any]:
    """Return the JSON-LD context of the graph of a run.

    Parameters
    ----------
    run_uuid : str
        Distinguishes steps and intermediate files of different runs if their graphs are merged.
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
        Names of the enclosing workflows and of the step, such as 'sub_01_wf/.../deconvolve'.
    command : str
        Interface of the step.
    began, ended : datetime
    inputs, outputs : dict
        By port; outputs are empty if the step failed.
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
        """Whether the step copies files to the output folder."""
        return 'written' in self.outputs


def read_steps(workflow: Workflow, began: float) -> list[RanStep]:
    """List the steps whose results this run computed or reused from the work folder.

    A result is included if it was computed since the run began, or if an included step used one of
    its files. Other results of earlier runs in the work folder are ignored.

    Parameters
    ----------
    workflow : Workflow
        A workflow that has run.
    began : float
        Start of the run, s since the epoch.

    Returns
    -------
    list of RanStep
        In the order of their start.
    """
    steps = {}
    for full_name in workflow.list_node_names():
        parts = full_name.split('.')
        home = _base(workflow).joinpath(*parts)
        result = home / f'result_{parts[-1]}.pklz'
        if result.is_file() and (step := _read_step(result, '/'.join(parts))):
            steps[home] = replace(step, inputs=step.inputs | _given_now(workflow, full_name, step))
    included: dict[Path, RanStep] = {}
    waiting = [home for home, step in steps.items() if step.began.timestamp() >= began]
    while waiting:
        home = waiting.pop()
        if home not in included:
            included[home] = steps[home]
            makers = {Path(path).parent for _, path in _paths(steps[home].inputs)}
            waiting += [maker for maker in makers if maker in steps]
    return sorted(included.values(), key=lambda step: (step.began, step.name))


def _base(workflow: Workflow) -> Path:
    """Return the folder of the nodes as in nipype's results: without links and '..'."""
    return Path(workflow.base_dir, workflow.name).resolve()


def _given_now(workflow: Workflow, name: str, step: RanStep) -> dict[str, Any]:
    """Return the inputs from outside the graph with their paths in this run.

    A reused step recorded the paths of its own run, where the same file may have had another name or
    been in a folder that no longer exists.
    """
    inputs = workflow.get_node(name).inputs.get_traitsfree()
    return {port: value for port, value in inputs.items() if port in step.inputs}


def _read_step(path: Path, name: str) -> RanStep | None:
    """Read a result of nipype; None if it cannot be read, for example after a crash."""
    try:
        result = load_resultfile(str(path))
        runtime = result.runtime
        times = [datetime.fromisoformat(text) for text in (runtime.startTime, runtime.endTime)]
    except Exception:  # unpickling may raise anything
        return None
    began, ended = (time if time.tzinfo else time.replace(tzinfo=UTC) for time in times)
    outputs = result.outputs.get_traitsfree() if result.outputs is not None else {}
    interface = result.interface
    return RanStep(
        name, f'{interface.__module__}.{interface.__name__}', began, ended,
        dict(result.inputs or {}), dict(outputs), result.outputs is None,
    )  # fmt: skip


def _paths(value: Any, port: str = '') -> Iterator[tuple[str, str]]:
    """List the absolute paths in a value, each with its port or key."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _paths(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _paths(inner, port)
    elif isinstance(value, str | Path) and Path(value).is_absolute():
        yield port, str(value)


def _parameter(value: Any) -> Any:
    """Return a parameter as one literal; lists as JSON, since RDF does not preserve order."""
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
        self.input_files = {
            str(file.path): (file.uri, name)
            for item in series
            for name, file in item.files.items()
        }
        self.ids: dict[str, str] = {}  # ids of files by path

    def file(self, path: str, quantity: str = '', **links: Any) -> str | None:
        """Add a file, or add links to its record; return its id, None if the file is missing."""
        if (known := self.ids.get(path)) is not None:
            self.records[known] |= links
            return known
        where = Path(path)
        if not where.is_file():
            return None
        label = where.name
        if path in self.input_files:
            identity, quantity = self.input_files[path]
        elif where.is_relative_to(self.run.output_dir):
            identity = bids_uri('', where.relative_to(self.run.output_dir))
        elif where.is_relative_to(self.base):
            identity = f'run:{where.relative_to(self.base).as_posix()}'
        else:  # the folder is not recorded, for privacy
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
        """Add a step with its input and output files."""
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
                # a port may contain several files, such as figures
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
            if path.endswith('.json') and port != 'viewer':  # the viewer file contains images
                self.records[identity] |= _measured(Path(path))

    def _written(self, step: RanStep, identity: str) -> None:
        """Add the files in the output folder, each copied from one file in the work folder."""
        written = {str(path) for path in step.outputs['written']}
        for row in step.inputs.get('rows', ()):
            path = str(Path(self.run.output_dir, row['path']))
            if path not in written:
                continue
            source = self.ids.get(str(step.inputs[row['name']]))
            made_by = {'GeneratedBy': identity}
            self.file(path, row['name'], **made_by, DerivedFrom=source, AlternateOf=source)
            files = [step.inputs.get(port) for port in (*row['facts'], *row['fields'])]
            facts = sorted({self.ids[str(file)] for file in files if str(file) in self.ids})
            for beside in with_sidecars(Path(path))[1:]:
                self.file(str(beside), **made_by, DerivedFrom=facts or source)
        drawn = [step.inputs.get(port) for port in ('figures', 'viewer')]
        by_name = {
            Path(path).name: path for _, path in _paths([files for files in drawn if files])
        }
        for path in written:
            if source := self.ids.get(by_name.get(Path(path).name, '')):
                self.file(
                    path, 'figure', GeneratedBy=identity, DerivedFrom=source, AlternateOf=source
                )


def _measured(path: Path) -> dict[str, Any]:
    """Read the measured values of a step: single values and short lists in its JSON file."""
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

    Files of the output, the input and the work folder are hashed once each. Folders, users and hosts
    are not recorded: files are named by BIDS URIs or relative to the work folder.

    Parameters
    ----------
    workflow : Workflow
        A workflow that has run.
    series : sequence of CTPSeries and PrecomputedMaps
    method : MethodSettings
    run : RunSettings
    began : float
        Start of the run, s since the epoch.
    software : mapping of str to str
        Versions by name, including ``ctpprep`` and ``antspyx``.
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
    # omit empty links
    records = [
        {key: value for key, value in record.items() if value not in (None, [])}
        for record in graph.records.values()
    ]
    write_json({'@context': context(run.run_uuid), '@graph': records}, path)
    return path
