"""The process in which libFuzzer runs, with its own options: it instruments what is imported, and ends the process."""

import sys

import atheris

with atheris.instrument_imports(include=["dynamic_toolset"]):
    from tests.fuzz.fuzz_pipeline import check, mutated


def mutate(data: bytes, most: int, seed: int) -> bytes:
    return mutated(data, seed, most, atheris.Mutate)


atheris.Setup(sys.argv, check, custom_mutator=mutate)
atheris.Fuzz()
