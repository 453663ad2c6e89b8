# SPDX-License-Identifier: Apache-2.0
"""Check the English of docstrings, comments, messages and names in the source.

::

    python scripts/check_prose.py [FILE ...]    # default: all of ctpprep/ and scripts/

Messages are the strings of exceptions, warnings, log calls and help texts. Each violation is
printed as ``file:line: found -> use``. Folders in `NOT_YET_CLEAN` are skipped; one without
violations must be removed from that list.

Exit code: 0 if nothing is found, 1 otherwise.
"""

import argparse
import ast
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ('ctpprep', 'scripts')

# Folders and files whose prose has not been revised. It must only shrink.
NOT_YET_CLEAN: tuple[str, ...] = ()

# What is stored somewhere; none of these acts.
STORES = (
    r'(?:(?:file|folder|dataset|table|sidecar|header|log|page|report|record|array|list|column|row)s?'
    r'|json|dict|director(?:y|ies))'
)
COMPARATIVES = (
    'longer|shorter|more|less|fewer|later|earlier|larger|greater|smaller|higher|lower|lighter|denser'
    '|better|worse'
)

# pattern (spaces match any white space) -> what to use
PROSE = {
    r'\b(?:tells?|told|telling)\b': 'log, return, show, describe or distinguish',
    r'\b(?:says?|said|saying)\b(?!,)': 'state, mean, return or log',
    r'\bstands? for\b': 'represent, mean or replace',
    r'\b(?:stands?|stood|standing)\b(?! for| out|-?alone)': 'is, is in, is written or remains',
    r'\b(?:knows?|knew)\b': 'support, accept, contain or record',
    rf'(?<!there[ ])\b(?:is|are|was|were) no\b(?! (?:{COMPARATIVES})\b)': (
        'is not a; has no; there is no'
    ),
    r'\blikewise\b': 'also, or in the same way',
    r'\bmade elsewhere\b': 'precomputed',
    r'\bpass(?:ed|es|ing)? over\b': 'skip',
    r', too(?=\s*(?:[.;:,)!?]|$))': 'also, before the verb',
    rf'\b{STORES} (?:that |which )?(?:holds?|held)\b': 'contain',
    rf'\bheld (?:in|by) (?:the |a |an |its |one )?{STORES}\b': 'stored in',
    rf'\b{STORES} (?:that |which )?(?:lies?|lay)\b': 'is in, is stored in',
    r'\b(?:does not|do not|only|that|which|what|they|it|all|none|both) counts?\b(?! of)': (
        'matter, apply, or is included'
    ),
    r'\bcounts? (?:as|for|too|towards?)\b': 'is treated as, or matter',
    r'\bin (?:its|their) stead\b': 'instead',
    r'\b(?:is|are) not (?:here|there)\b': 'is missing',
    r'\bnot (?:there )?any ?more\b': 'no longer',
    r'\breads? (?:too|more|less) (?:high|low|large|small)\b': 'is overestimated or underestimated',
}
NAMES = {
    'each': 'the noun of the item: series, path, curve',
    'found': 'the noun of the result: paths, errors, matches',
    'told': 'what it is: logged, message, warned',
    'mine': 'what it is: own_rows, local_path',
    'said': 'what it is: message, text, reason',
    'here': 'what it is: folder, position, voxels',
    'given': 'what it is: options, overrides, values',
}
VERBS = {
    'tell': 'log_, format_, describe_ or return what it computes',
    'tells': 'log_, format_ or describe_',
    'say': 'log_, format_ or describe_',
    'says': 'log_, format_ or describe_',
    'know': 'has_, supports_ or find_',
    'knows': 'has_ or supports_',
    'stand': 'the verb of what it does',
    'stands': 'is_ or has_',
    'lie': 'the verb of what it does',
    'lies': 'is_in_ or is_inside_',
    'hold': 'store_, keep_ or contain_',
    'holds': 'has_ or contains_',
}
LOG_METHODS = {'debug', 'info', 'warning', 'error', 'critical', 'exception', 'log', 'warn'}
WRITERS = {'print', 'write', 'exit', '_setting'}  # to the terminal; help texts of settings
HELP = {'help', 'epilog', 'desc'}

_PATTERNS = [
    (re.compile(pattern.replace(' ', r'\s+'), re.IGNORECASE), use)
    for pattern, use in PROSE.items()
]


class Violation(NamedTuple):
    """One phrase or name, and what to use instead."""

    line: int
    phrase: str
    use: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description='Check the English of docstrings, comments, messages and names.'
    )
    parser.add_argument(
        'files', nargs='*', type=Path, help='default: all of ctpprep/ and scripts/'
    )
    files = [path.resolve() for path in parser.parse_args(argv).files]
    lines = check_files(files, ROOT, ()) if files else check_tree(ROOT, NOT_YET_CLEAN)
    for line in lines:
        print(line)
    return 1 if lines else 0


def check_tree(root: Path, not_yet_clean: Sequence[str]) -> list[str]:
    """Check all modules below `ROOTS`, and whether each entry of the allow-list is needed.

    Returns
    -------
    list of str
        Violations as ``file:line: found -> use``; empty if there is none.
    """
    files = sorted(path for folder in ROOTS for path in (root / folder).rglob('*.py'))
    lines = check_files(files, root, not_yet_clean)
    for entry in not_yet_clean:
        allowed = [path for path in files if path.relative_to(root).as_posix().startswith(entry)]
        if not check_files(allowed, root, ()):
            lines.append(f'{entry} has no violation: remove it from NOT_YET_CLEAN')
    return lines


def check_files(files: Iterable[Path], root: Path, skipped: Sequence[str]) -> list[str]:
    """Check files, except those in a skipped folder."""
    lines = []
    for path in files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        if not name.startswith(tuple(skipped)):
            lines += [
                f'{name}:{violation.line}: {violation.phrase} -> {violation.use}'
                for violation in check_source(path.read_text(encoding='utf-8'))
            ]
    return lines


def check_source(source: str) -> list[Violation]:
    """Check the prose and the names of one module, in the order of its lines.

    >>> check_source('def tell_all(each): pass')[0]
    Violation(line=1, phrase='tell_all', use='log_, format_, describe_ or return what it computes')
    """
    tree = ast.parse(source)
    prose = [*find_comments(source), *find_docstrings(tree), *find_messages(tree)]
    violations = {violation for line, text in prose for violation in check_text(line, text)}
    violations.update(check_names(tree))
    return sorted(violations)


def check_text(line: int, text: str) -> Iterator[Violation]:
    """Find the banned phrases of a text that begins on a line."""
    for pattern, use in _PATTERNS:
        for match in pattern.finditer(text):
            phrase = ' '.join(match.group().split())
            yield Violation(line + text.count('\n', 0, match.start()), phrase, use)


def find_comments(source: str) -> Iterator[tuple[int, str]]:
    """Find comments as (line, text); comments on successive lines are one text."""
    block: list[str] = []
    start = 0
    for token in tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__):
        if token.type != tokenize.COMMENT:
            continue
        text = token.string.lstrip('#: ')
        if block and token.start[0] == start + len(block):
            block.append(text)
        else:
            if block:
                yield start, '\n'.join(block)
            start, block = token.start[0], [text]
    if block:
        yield start, '\n'.join(block)


def find_docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Find the docstrings of a module, its classes and functions as (line, text)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            match first:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield first.lineno, text


def find_messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Find the strings of exceptions, warnings, log calls and help texts as (line, text)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from find_strings(node.exc)
        elif isinstance(node, ast.Call):
            if is_message_call(node.func):
                yield from find_strings(node)
            for keyword in node.keywords:
                if keyword.arg in HELP:
                    yield from find_strings(keyword.value)


def is_message_call(function: ast.expr) -> bool:
    """Return whether a call logs, warns, prints or creates an exception."""
    if isinstance(function, ast.Attribute):
        return function.attr in LOG_METHODS | WRITERS or is_exception(function.attr)
    return isinstance(function, ast.Name) and (function.id in WRITERS or is_exception(function.id))


def is_exception(name: str) -> bool:
    """Return whether a name is that of an exception or a warning."""
    return name[:1].isupper() and name.endswith(('Error', 'Exception', 'Warning'))


def find_strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Find the strings in an expression as (line, text); fields of an f-string become ``{}``."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else '{}' for part in node.values]
        yield node.lineno, ''.join(map(str, parts))
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.lineno, node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from find_strings(child)


def check_names(tree: ast.Module) -> Iterator[Violation]:
    """Find banned names of functions, classes, parameters, variables and attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                verb = name.strip('_').split('_')[0]
                if verb in VERBS:
                    yield Violation(node.lineno, name, VERBS[verb])
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                pass
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                pass
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                pass
            case _:
                continue
        if name.strip('_') in NAMES:
            yield Violation(node.lineno, name, NAMES[name.strip('_')])


if __name__ == '__main__':
    sys.exit(main())
