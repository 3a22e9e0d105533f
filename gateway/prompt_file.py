"""A prompt version is one file, never changed: YAML in front, then Jinja in sections.

    ---
    id: greeter
    version: 1
    inputs: {tone: {type: string, enum: [warm, dry], default: warm}}
    ---
    system:
    Greet in a {{ tone }} tone.
    {{ messages }}

`system:`, `user:` and `assistant:` on a line of their own open a section, which becomes a message.
`{{ messages }}`, `{{ history }}` (all but the last question) and `{{ examples }}` alone on a line
stay chat turns. Close to Prompty (github.com/microsoft/prompty). Rendering is `prompts`'.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jinja2
import msgspec
import yaml
from jinja2 import nodes
from msgspec import Meta

from gateway.config_file import ConfigError, in_sampling
from gateway.errors import BadRequest
from gateway.prompt_inputs import defaults, shape_of
from model.protocol.sandbox import environment
from model.protocol.shapes import explain

CUT = "cut_"  # the variable that begins a piece of the rendered text; its value is a secret
TURNS = ("messages", "history", "examples")
GIVEN = frozenset({*TURNS, "question", "context", "output"})  # what every template may use
SUFFIXES = (".md", ".prompty")
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]

_FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_PIECE = re.compile(
    r"^(?:(system|user|assistant):|\{\{\s*(" + "|".join(TURNS) + r")\s*\}\})[ \t]*$", re.MULTILINE
)
_MADE_BY_JINJA = {"loop", "caller", "varargs", "kwargs"}
_STATEMENTS = re.compile(r"\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_ENVIRONMENT = environment(jinja2.StrictUndefined)  # to parse only


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str
    assistant: str


class Front(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What stands above the template."""

    id: Name
    version: Name | int
    inputs: dict[str, dict[str, Any]] = {}  # name → JSON Schema; without a default, required
    sampling: dict[str, Any] = {}  # under the release's and the client's
    examples: tuple[Example, ...] = ()
    output: str = ""  # the output contract: what an answer has to look like
    notes: str = ""
    parent: str = ""  # the version that this one follows
    copies: Annotated[int, Meta(ge=1, le=16)] = 1  # how often the client's text may appear


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """`source` is what is rendered; `text` the file as it is, whose hash is `hash`."""

    front: Front
    text: str
    source: str
    uses: frozenset[str]  # the variables that it reads
    shape: type[msgspec.Struct]
    hash: str

    @property
    def name(self) -> str:
        return f"{self.front.id}@{self.front.version}"

    @property
    def num_messages(self) -> int:
        """That the template adds to the client's, at most."""
        return self.source.count(CUT) + 2 * len(self.front.examples)

    @property
    def has_all_turns(self) -> bool:
        return f"{{{{ {CUT} }}}}messages:" in self.source

    def read(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Values of all inputs. Raises BadRequest with the path of what is missing or wrong."""
        for name in variables.keys() - self.front.inputs.keys():
            path = f"prompt.variables.{name}"
            raise BadRequest(f"{self.name} has no input {name!r}", param=path)
        given = {**defaults(self.front.inputs), **variables}
        try:
            msgspec.convert({"prompt": {"variables": given}}, self.shape)
        except msgspec.ValidationError as error:
            message, param = explain(error)
            raise BadRequest(message, param=param) from error
        return given


def paths(folder: Path) -> list[Path]:
    return sorted(it for it in folder.glob("**/*") if it.suffix in SUFFIXES)


def load_folder(folder: Path) -> dict[str, Prompt]:
    """id@version → prompt, of all files in the folder; none without one. Raises ConfigError."""
    found: dict[str, Prompt] = {}
    for path in paths(folder):
        try:
            prompt = parse(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        if prompt.name in found:
            raise ConfigError(f"{path}: there is another {prompt.name}")
        found[prompt.name] = prompt
    return found


def parse(text: str) -> Prompt:
    """Raises ConfigError with what is wrong with the file."""
    head = _FRONT.match(text)
    if head is None:
        raise ConfigError("needs front matter between two lines of ---")
    try:
        front = msgspec.convert(yaml.safe_load(head[1]), Front)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ConfigError(str(error)) from error
    for where, complaint in in_sampling(front.sampling):
        raise ConfigError(f"sampling{where}: {complaint}")
    source = _in_pieces(text[head.end() :])
    return Prompt(
        front=front,
        text=text,
        source=source,
        uses=_names(source, front),
        shape=shape_of(front.inputs),
        hash=hashlib.sha256(text.encode()).hexdigest(),
    )


def changed(old: Mapping[str, Prompt], new: Mapping[str, Prompt]) -> list[str]:
    """Versions that are not what they were: a reason to refuse `new`."""
    return sorted(name for name in old.keys() & new.keys() if old[name].hash != new[name].hash)


def _in_pieces(body: str) -> str:
    """The template with a cut, and the name of what follows, where a piece begins."""
    first = _PIECE.search(body)
    if first is None or _STATEMENTS.sub("", body[: first.start()]).strip():
        raise ConfigError("the template needs to begin with system:, user: or assistant:")
    return _PIECE.sub(lambda it: f"{{{{ {CUT} }}}}{it[1] or it[2]}:", body)


def _names(source: str, front: Front) -> frozenset[str]:
    """What the template reads and does not set. The tree alone: Jinja's own search compiles, and
    so computes what is constant, however large."""
    try:
        tree = _ENVIRONMENT.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"template line {error.lineno}: {error.message}") from error
    found = list(tree.find_all(nodes.Name))
    own = {it.name for it in found if it.ctx != "load"} | _MADE_BY_JINJA
    own |= {it.name for it in tree.find_all(nodes.Macro)} | _ENVIRONMENT.globals.keys()
    read = {it.name for it in found if it.ctx == "load"} - {CUT}
    known = GIVEN | front.inputs.keys()
    if unknown := read - known - own:
        raise ConfigError(f"the template uses {min(unknown)!r}, which is no input")
    if taken := GIVEN & front.inputs.keys():
        raise ConfigError(f"inputs.{min(taken)}: the name is taken")
    return frozenset(read & known)
