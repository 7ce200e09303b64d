"""Look through an ONNX file before a runtime opens it, without the onnx package.

A network of a bundle is one self-contained file of standard operators. Weights in other files (whose path the network
chooses), operators of other libraries and settings for the runtime are refused, whatever the installed runtime would
do. The file is a protocol buffer; field numbers are those of onnx.proto (ONNX IR version 4 and later).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from workzone.errors import BundleError

_STANDARD = {b"", b"ai.onnx"}
_MAX_DEPTH = 16
_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_METADATA, _MODEL_FUNCTION = 7, 20, 14, 25
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_FUNCTION_NODE = 7
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_SPARSE_PARTS = (1, 2)

Span = tuple[int, int]


def refuse_unsafe_onnx(path: Path) -> None:
    """Raise BundleError unless the file is a self-contained network of standard operators."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _model(data)
    except _RefusedError as error:
        raise BundleError(
            f"{path.name} {error}", where=str(path), fix="export the network again as one file of standard operators"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path.name} is not an ONNX file: {error}", where=str(path)) from error


class _RefusedError(Exception):
    pass


def _model(data: mmap.mmap) -> None:
    graphs = 0
    for field, value in _fields(data, (0, len(data))):
        if not isinstance(value, tuple):
            continue
        if field == _MODEL_GRAPH:
            graphs += 1
            _graph(data, value, 0)
        elif field == _MODEL_FUNCTION:
            for inner, node in _messages(data, value):
                if inner == _FUNCTION_NODE:
                    _node(data, node, 0)
        elif field == _MODEL_TRAINING:
            raise _RefusedError("holds a training program")
        elif field == _MODEL_METADATA:
            raise _RefusedError("holds metadata, which can carry settings for the runtime")
    if not graphs:
        raise ValueError("it holds no graph")


def _graph(data: mmap.mmap, span: Span, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("graphs are nested too deeply")
    for field, value in _messages(data, span):
        if field == _GRAPH_NODE:
            _node(data, value, depth)
        elif field == _GRAPH_TENSOR:
            _tensor(data, value)
        elif field == _GRAPH_SPARSE:
            _sparse(data, value)


def _node(data: mmap.mmap, span: Span, depth: int) -> None:
    operator, domain = b"", b""
    for field, value in _messages(data, span):
        if field == _NODE_OPERATOR:
            operator = data[value[0] : value[1]]
        elif field == _NODE_DOMAIN:
            domain = data[value[0] : value[1]]
        elif field == _NODE_ATTRIBUTE:
            for inner, part in _messages(data, value):
                if inner in _ATTRIBUTE_TENSORS:
                    _tensor(data, part)
                elif inner in _ATTRIBUTE_GRAPHS:
                    _graph(data, part, depth + 1)
                elif inner in _ATTRIBUTE_SPARSE:
                    _sparse(data, part)
    if domain not in _STANDARD:
        shown = f"{domain[:60].decode(errors='replace')}.{operator[:60].decode(errors='replace')}"
        raise _RefusedError(f"uses the operator {shown!r}, which is not a standard one")


def _sparse(data: mmap.mmap, span: Span) -> None:
    for field, value in _messages(data, span):
        if field in _SPARSE_PARTS:
            _tensor(data, value)


def _tensor(data: mmap.mmap, span: Span) -> None:
    for field, value in _fields(data, span):
        if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0):
            raise _RefusedError("takes weights from another file")


def _messages(data: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    for field, value in _fields(data, span):
        if isinstance(value, tuple):
            yield field, value


def _fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, int | Span]]:
    """Field number with its value: an integer, or the span of a message, string or packed list."""
    at, end = span
    while at < end:
        tag, after = _varint(data, at, end)
        if after - at > 5:
            raise ValueError("a field number is malformed")
        at, kind = after, tag & 7
        if kind == 0:
            value, at = _varint(data, at, end)
            yield tag >> 3, value
        elif kind == 2:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise ValueError("it ends early")
            yield tag >> 3, (at, at + length)
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("it is not a protocol buffer")
    if at != end:
        raise ValueError("it ends early")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it ends early")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is malformed")
