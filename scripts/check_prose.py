# SPDX-License-Identifier: Apache-2.0
"""Check the English of the source (docstrings, comments, messages, names) and of Markdown.

::

    python scripts/check_prose.py [FILE ...]    # default: source, documentation and README

Messages are the strings of exceptions, warnings, log calls, help texts and functions that describe.
In Markdown, prose is checked for the same phrases, lines for their length and table cells for the
number of words; code is ignored. Each violation is printed as ``file:line: found -> use``.

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
PAGES = ('*.md', 'docs/**/*.md', 'data/*.md', 'benchmarks/*.md', '.github/**/*.md')
BUILT = ('docs/_build/', 'docs/api/')

LONGEST_LINE = 100  # of Markdown, outside code, tables and links
MOST_WORDS = 12  # of a table cell, apart from code
MOST_MESSAGE_WORDS = 30  # of an exception or a help text
# first cells of tables whose words are those of the code
LONG_TABLES = ('check', 'checks')

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
# functions that write sentences, such as the methods text
DESCRIBERS = ('_describe', 'describe', 'explain')


def _compile(phrases: dict[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile(pattern.replace(' ', r'\s+'), re.IGNORECASE), use)
        for pattern, use in phrases.items()
    ]


# phrases of Markdown pages beside those of `PROSE`
PAGE_PROSE = {
    r'\b(?:times?|rows?|curves?|files?|participants?|GB|MB) an? '
    r'(?:frame|slice|series|voxel|task|participant|process|node|page)\b': 'per',
    r'\b(?:takes?|took|taken) away\b': 'remove',
    r'\breads? (?:low|high)\b': 'is underestimated or overestimated',
    r'\b(?:over|under)-read\b': 'overestimated or underestimated',
    r'\btaken (?:up again|for)\b': 'resumed; mistaken for',
    r'\bputs? out\b': 'return, write',
}

_PATTERNS = _compile(PROSE)
_PAGE_PATTERNS = [*_PATTERNS, *_compile(PAGE_PROSE)]


class Violation(NamedTuple):
    """One phrase or name, and what to use instead."""

    line: int
    phrase: str
    use: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description='Check the English of the source and of the documentation.'
    )
    parser.add_argument(
        'files', nargs='*', type=Path, help='default: source, documentation and README'
    )
    files = [path.resolve() for path in parser.parse_args(argv).files]
    lines = check_files(files, ROOT) if files else check_tree(ROOT)
    for line in lines:
        print(line)
    return 1 if lines else 0


def check_tree(root: Path) -> list[str]:
    """Check all modules and pages.

    Returns
    -------
    list of str
        Violations as ``file:line: found -> use``; empty if there is none.
    """
    files = sorted(path for folder in ROOTS for path in (root / folder).rglob('*.py'))
    pages = sorted({path for pattern in PAGES for path in root.glob(pattern)})
    files += [page for page in pages if not page.relative_to(root).as_posix().startswith(BUILT)]
    return check_files(files, root)


def check_files(files: Iterable[Path], root: Path) -> list[str]:
    """Check Markdown files as pages and all others as modules."""
    lines = []
    for path in files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        text = path.read_text(encoding='utf-8')
        violations = check_page(text) if path.suffix == '.md' else check_source(text)
        lines += [f'{name}:{line}: {phrase} -> {use}' for line, phrase, use in violations]
    return lines


def check_page(text: str) -> list[Violation]:
    """Check the prose, the lines and the tables of a Markdown page, in the order of its lines."""
    prose = blank_code(text)
    violations = set(check_text(1, prose, _PAGE_PATTERNS))
    head = ''  # first cell of the table
    for number, (line, words) in enumerate(
        zip(text.split('\n'), prose.split('\n'), strict=True), start=1
    ):
        if words.startswith('|'):
            cells = [cell.strip() for cell in words.strip('|').split('|')]
            head = head or cells[0] or '-'
            for cell in cells if head not in LONG_TABLES else ():
                count = len(re.findall(r"[^\W\d][\w'.-]*", cell))
                if count > MOST_WORDS:
                    phrase = f'{count} words in cell "{" ".join(cell.split()[:4])} ..."'
                    violations.add(Violation(number, phrase, f'at most {MOST_WORDS}'))
            continue
        head = ''
        if len(line) > LONGEST_LINE and words.strip() and not is_unbreakable(line):
            violations.add(Violation(number, f'line of {len(line)}', f'at most {LONGEST_LINE}'))
    return sorted(violations)


def is_unbreakable(line: str) -> bool:
    """Return whether a line is long only because of one link or picture."""
    return len(re.sub(r'!?\[[^\]]*\]\([^)]*\)|<[^>]*>|https?://\S+', '', line)) < LONGEST_LINE / 2


def blank_code(text: str) -> str:
    """Replace code, comments and targets of links by nothing; lines keep their numbers.

    >>> blank_code('Use `x` in [it](page.md).')
    'Use  in [it].'
    """
    lines, fence, blank, in_list = [], '', True, False
    for line in text.split('\n'):
        stripped = line.lstrip()
        if fence:
            if stripped.startswith(fence):
                fence = ''
            line = ''
        elif match := re.match(r'(`{3,}|~{3,})', stripped):
            fence, line = match[1], ''
        elif line.startswith('    ') and blank and not in_list:
            line = ''
        elif stripped:
            if not line.startswith(' '):
                in_list = bool(re.match(r'[*-] |\d+\. ', line))
            blank = False
            lines.append(line)
            continue
        blank = blank or not stripped
        lines.append(line)
    joined = re.sub(r'<!--.*?-->', _keep_lines, '\n'.join(lines), flags=re.DOTALL)
    joined = re.sub(r'`[^`]+`', _keep_lines, joined)
    return re.sub(r'(?<=\])\([^)\s]*\)', '', joined)


def _keep_lines(match: re.Match[str]) -> str:
    return '\n' * match[0].count('\n')


def check_source(source: str) -> list[Violation]:
    """Check the prose and the names of one module, in the order of its lines.

    >>> check_source('def tell_all(): pass')[0]
    Violation(line=1, phrase='tell_all', use='log_, format_, describe_ or return what it computes')
    """
    tree = ast.parse(source)
    prose = [*find_comments(source), *find_docstrings(tree), *find_messages(tree)]
    violations = {violation for line, text in prose for violation in check_text(line, text)}
    violations.update(check_lengths(tree))
    violations.update(check_names(tree))
    return sorted(violations)


def check_lengths(tree: ast.Module) -> Iterator[Violation]:
    """Find exceptions and help texts with too many words."""
    for node in ast.walk(tree):
        texts: list[tuple[int, str]] = []
        if isinstance(node, ast.Raise) and node.exc is not None:
            texts = list(find_strings(node.exc))
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == '_setting':
            texts = list(find_strings(node))
        for line, text in texts:
            if len(text.split()) > MOST_MESSAGE_WORDS:
                phrase = f'{len(text.split())} words in "{" ".join(text.split()[:4])} ..."'
                yield Violation(line, phrase, f'at most {MOST_MESSAGE_WORDS}')


def check_text(
    line: int, text: str, patterns: Sequence[tuple[re.Pattern[str], str]] = _PATTERNS
) -> Iterator[Violation]:
    """Find the banned phrases of a text that begins on a line."""
    for pattern, use in patterns:
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
    """Find the strings of messages, and of functions that describe, as (line, text)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from find_strings(node.exc)
        elif isinstance(node, ast.Call):
            if is_message_call(node.func):
                yield from find_strings(node)
            for keyword in node.keywords:
                if keyword.arg in HELP:
                    yield from find_strings(keyword.value)
        elif isinstance(node, ast.FunctionDef) and node.name.startswith(DESCRIBERS):
            for statement in node.body[bool(ast.get_docstring(node)) :]:
                yield from find_strings(statement)


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
