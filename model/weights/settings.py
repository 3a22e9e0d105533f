"""What a checkpoint says of itself, in one form for every container."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.weights.errors import MissingTensor, UnsupportedArchitecture


class Settings(dict[str, Any]):
    """A dictionary that names its file when a key is wanted which it lacks."""

    def __init__(self, source: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.source = source

    @classmethod
    def read(cls, path: Path) -> "Settings":
        """From a JSON file that must be there."""
        try:
            return cls(path, json.loads(path.read_bytes()))
        except FileNotFoundError as error:
            raise MissingTensor(f"{path.parent} has no {path.name}") from error
        except (ValueError, TypeError) as error:
            raise UnsupportedArchitecture(f"{path} is no JSON object: {error}") from error

    @classmethod
    def read_if_any(cls, path: Path) -> "Settings":
        """From a JSON file; empty without one."""
        return cls.read(path) if path.is_file() else cls(path, {})

    def __missing__(self, key: str) -> Any:
        raise MissingTensor(f"{self.source} does not say {key}")

    def require(self, known: Mapping[str, Any]) -> None:
        """Refuse a setting that is there and differs from the one that is computed here."""
        for key, value in known.items():
            if self.get(key, value) != value:
                raise UnsupportedArchitecture(
                    f"{self.source}: {key} is {self[key]!r}, only {value!r} runs here"
                )
