"""From LLVM instructions to machine code for this CPU, in some milliseconds and without a compiler.

numba brings llvmlite along, and compiles what is written in Python itself.
"""

from functools import cache
from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]

__all__ = ["INT", "LONG", "compile_function", "ir"]

INT, LONG = ir.IntType(32), ir.IntType(64)

_engines: list[Any] = []  # whoever drops an engine drops its code


@cache
def _target_machine() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3
    )


def compile_function(module: ir.Module, name: str) -> int:
    """The address of the function `name` of the module; its code stays as long as the process."""
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), _target_machine())
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(name))
