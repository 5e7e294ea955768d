"""What a file of Python imports, read from its text without running it."""

from __future__ import annotations

import ast


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """List the modules that a parsed file imports, at its top or anywhere inside.

    Returns
    -------
    list of (int, str)
        Line and dotted name; leading dots where an import is relative.

    Examples
    --------
    >>> imported(ast.parse("import os.path\\nfrom . import beside"))
    [(1, 'os.path'), (2, '.')]
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
    return found
