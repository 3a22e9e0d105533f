"""The form of a file upload (RFC 7578), from a body that is already bounded and in memory."""

from email.message import Message

from gateway.errors import BadRequest

MAX_PARTS = 16


def read_form(content_type: str, body: bytes) -> dict[str, tuple[str, bytes]]:
    """Field → (filename or "", content). Raises BadRequest."""
    boundary = _parameter("content-type", content_type, "boundary")
    if not content_type.lower().startswith("multipart/form-data") or not boundary:
        raise BadRequest("send the file as multipart/form-data", param="file")
    marker = b"\r\n--" + boundary.encode()
    pieces = (b"\r\n" + body).split(marker)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--") or len(pieces) > MAX_PARTS + 2:
        raise BadRequest("the form is cut off, or of too many parts", param="body")
    form = {}
    for piece in pieces[1:-1]:
        head, found, content = piece.partition(b"\r\n\r\n")
        if not found:
            raise BadRequest("a part of the form has no end of its headers", param="body")
        disposition = _header(head, "content-disposition")
        name = _parameter("content-disposition", disposition, "name")
        if name in form:
            raise BadRequest(f"the form has {name!r} twice", param=name)
        form[name] = (_parameter("content-disposition", disposition, "filename"), content)
    return form


def _header(head: bytes, name: str) -> str:
    for line in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return ""


def _parameter(header: str, value: str, name: str) -> str:
    message = Message()
    message[header] = value.replace("\r", "").replace("\n", "")
    found = message.get_param(name, "", header)
    return (found[2] if isinstance(found, tuple) else str(found or "")).replace("\0", "")
