"""YAML from strangers: recipes and targets are data, so the loader accepts data and nothing else.

The language is the YAML 1.2 core schema with string keys: no tags, no merge keys, no dates, and ``on``/``no``
are plain strings. Size, depth and expanded aliases are bounded: an alias bomb is an error, not an hour.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from ..errors import InputError

if TYPE_CHECKING:
    from yaml._yaml import Mark as CMark

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_ANCHORS = 50
MAX_NODES = 50_000

_RESOLVERS = (
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)|[0-9]+\.[0-9]*)$"),
        list("-+.0123456789"),
    ),
)


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader that resolves plain scalars as YAML 1.2's core schema does."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - an instance attribute in PyYAML's own typing
        letter: [(tag, pattern) for tag, pattern, first in _RESOLVERS if letter in first]
        for letter in {letter for _, _, first in _RESOLVERS for letter in first}
    }


def load_yaml(text: str, *, source: str) -> Any:
    """Parse one YAML document into dicts, lists, strings, numbers, booleans and None (an empty text).

    ``source`` names the text in errors (a file name).
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise InputError(f"{source} has {size} bytes; YAML is read up to {MAX_BYTES} bytes")
    try:
        _check_events(text, source)
        loader = _CoreLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_node(node, source, sizes={}, above=set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        _refuse(source, error.problem_mark, str(error.problem or error.context))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InputError(f"{source} is not valid YAML", why=str(error)) from None


def _refuse(source: str, mark: yaml.Mark | CMark | None, why: str, fix: str = "") -> NoReturn:
    where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
    raise InputError(f"{where} cannot be read as YAML", why=why, fix=fix) from None


def _check_events(text: str, source: str) -> None:
    """Bound depth, anchors and tags on the event stream, which costs no recursion."""
    depth = anchors = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            _refuse(source, event.start_mark, f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.NodeEvent):
            anchors += event.anchor is not None
            if anchors > MAX_ANCHORS:
                _refuse(source, event.start_mark, f"more than {MAX_ANCHORS} anchors and aliases")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            _refuse(
                source, event.start_mark, f"the tag {event.tag!r}: tags are not read", "write plain values"
            )


def _check_node(node: yaml.Node, source: str, *, sizes: dict[int, int], above: set[int]) -> int:
    """Count the values below ``node`` with aliases expanded; refuse cycles and bad keys on the way."""
    if id(node) in sizes:
        return sizes[id(node)]
    if id(node) in above:
        _refuse(source, node.start_mark, "an alias that contains itself")
    above.add(id(node))
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        _check_keys(node, source)
        children = [value for _, value in node.value]
    size = 1 + sum(_check_node(child, source, sizes=sizes, above=above) for child in children)
    if size > MAX_NODES:
        _refuse(source, node.start_mark, f"aliases expand to more than {MAX_NODES} values")
    above.discard(id(node))
    sizes[id(node)] = size
    return size


def _check_keys(node: yaml.MappingNode, source: str) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag != "tag:yaml.org,2002:str":
            shown = key.value if isinstance(key, yaml.ScalarNode) else "a collection"
            _refuse(source, key.start_mark, f"the key {shown!r} is not a string", "put the key in quotes")
        if key.value == "<<":
            _refuse(source, key.start_mark, "merge keys ('<<') are not read", "write the values out")
        if key.value in seen:
            _refuse(source, key.start_mark, f"duplicate key {key.value!r}", "keep one of the two")
        seen.add(key.value)
