"""From LLVM instructions to machine code for this CPU, in some milliseconds and without a compiler.

numba brings llvmlite along, and compiles what is written in Python itself.
"""

from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]

__all__ = ["INT", "LONG", "compile_function", "ir"]

INT, LONG = ir.IntType(32), ir.IntType(64)

_engines: list[Any] = []  # whoever drops an engine drops its code


def compile_function(module: ir.Module, name: str) -> int:
    """The address of the function `name` of the module; its code stays as long as the process."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    # an engine takes possession of its machine, so each needs one of its own
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3
    )
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address(name))
