"""The parts of a ``multipart/form-data`` body (RFC 7578), as little of it as an upload of a module needs."""

from __future__ import annotations

from email.message import Message


def parse(untrusted_body: bytes, content_type: str) -> dict[str, bytes]:
    """Name → content of every part.

    Raises:
        ValueError: another content type, no boundary, or a body that its boundary does not divide.
    """
    header = _header(content_type)
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise ValueError("Invalid `boundary` for `multipart/form-data` request")
    # The first boundary has no line break before it; giving it one makes every delimiter alike.
    pieces = (b"\r\n" + untrusted_body).split(b"\r\n--" + boundary.encode("latin-1"))
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise ValueError("Error parsing `multipart/form-data` request")
    return dict(_part(piece) for piece in pieces[1:-1])


def _part(piece: bytes) -> tuple[str, bytes]:
    head, divider, content = piece.partition(b"\r\n\r\n")
    if not divider:
        raise ValueError("Error parsing `multipart/form-data` request")
    for line in head.split(b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        if name.strip().lower() == "content-disposition":
            field = _header(f"form-data/x{value.strip()[len('form-data') :]}").get_param("name")
            return (field if isinstance(field, str) else ""), content
    return "", content


def _header(value: str) -> Message:
    message = Message()
    message["content-type"] = value
    return message
