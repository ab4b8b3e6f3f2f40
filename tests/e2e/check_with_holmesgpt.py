"""Loads a toolset file with the real HolmesGPT 0.45, as its server does, and tells what came of it.

To be run with the interpreter of HolmesGPT's own environment (``tests/cluster/holmesgpt.py`` makes it, and calls this);
it needs nothing else::

    PYTHON check_with_holmesgpt.py FILE [--key custom_toolset.yaml] [--env NAME=VALUE ...]
        [--tool NAME --parameters JSON] [--expect TOOLSET=enabled|failed|disabled|absent ...]

FILE is the toolset file, or a ConfigMap that holds it. It is put where the server looks for it, the server's toolsets
are prepared with every check that the server makes, and one JSON object is printed: what each toolset of the file has
become, and what the tool answered. Exit code: 0; 1 if an expectation failed, or there is no such tool; 2 if HolmesGPT
could not load the file, which in a cluster means that its server has no tools at all.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

_CHECK_SECONDS = 20  # the server's own budget for the checks of one toolset


def main() -> int:
    arguments = _arguments()
    text = Path(arguments.file).read_text()
    document = yaml.safe_load(text)
    if isinstance(document, dict) and document.get("kind") == "ConfigMap":
        text = document["data"][arguments.key]
        document = yaml.safe_load(text)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, arguments.key)
        file.write_text(text)
        os.environ.update(pair.split("=", 1) for pair in arguments.env)
        os.environ["CUSTOM_TOOLSET_LOCATION"] = str(file)
        os.environ["HOLMES_CONFIGPATH_DIR"] = folder  # nothing of ~/.holmes
        os.environ["HOLMES_TOOLSET_PREREQ_TIMEOUT_SECONDS"] = str(_CHECK_SECONDS)
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # no download of price lists
        return _load_and_tell(document, arguments)


def _load_and_tell(document: Any, arguments: argparse.Namespace) -> int:
    # Imported only now: HolmesGPT reads the environment while it is imported.
    from holmes.core.tools import SERVER_TOOLSET_TAGS, PrerequisiteCacheMode
    from holmes.core.toolset_manager import ToolsetManager

    try:
        toolsets = ToolsetManager().prepare_toolsets(
            toolset_tag_filter=SERVER_TOOLSET_TAGS,
            enable_all_toolsets_possible=False,
            prerequisite_cache=PrerequisiteCacheMode.DISABLED,
        )
    except Exception as error:  # noqa: BLE001, whatever it is, it is the finding
        print(f"HolmesGPT cannot load the file: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    names = {name for key in ("toolsets", "mcp_servers") for name in document.get(key) or {}}
    told = {
        toolset.name: {
            "status": toolset.status.value,
            "message": str(toolset.error or ""),
            "tools": [tool.name for tool in toolset.tools or []],
        }
        for toolset in toolsets
        if toolset.name in names
    }
    answer = _call(toolsets, arguments.tool, json.loads(arguments.parameters)) if arguments.tool else ""
    print(json.dumps({"toolsets": told, "answer": answer}, indent=2))
    return _judge(told, arguments.expect)


def _call(toolsets: Any, name: str, parameters: dict[str, Any]) -> str:
    """Call a tool as the agent's model would ask for it."""
    from holmes.core.llm import LLM
    from holmes.core.tools import ToolInvokeContext
    from holmes.core.tools_utils.tool_executor import ToolExecutor

    tool = ToolExecutor(toolsets).get_tool_by_name(name)
    if tool is None:
        sys.exit(
            f"There is no tool {name!r}: {sorted(tool.name for toolset in toolsets for tool in toolset.tools or [])}"
        )

    # Only asked how much it can read. The class is abstract, and a real one would want a model's credentials.
    class Model(LLM):
        def __init__(self) -> None:
            self.model = "none"

        def get_context_window_size(self) -> int:
            return 200_000

        def get_maximum_output_token(self) -> int:
            return 8_000

        def get_max_token_count_for_single_tool(self) -> int:
            return 50_000

        def count_tokens(self, messages: Any, tools: Any = None) -> Any:
            from holmes.core.llm import ContextWindowUsage

            return ContextWindowUsage.model_construct(total_tokens=len(str(messages)) // 4)

        def completion(self, *arguments: Any, **options: Any) -> Any:
            raise NotImplementedError

    context = ToolInvokeContext(llm=Model(), max_token_count=50_000, tool_call_id="1", tool_name=name)
    result = tool.invoke(parameters, context)
    return f"status={result.status.value} error={result.error}\n{result.get_stringified_data()}"


def _judge(told: dict[str, Any], expectations: list[str]) -> int:
    failures = 0
    for expectation in expectations:
        name, _, wanted = expectation.rpartition("=")
        found = told[name]["status"] if name in told else "absent"
        if found != wanted:
            failures = 1
            print(f"{name} is {found}, not {wanted}", file=sys.stderr)
    return failures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--key", default="custom_toolset.yaml")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--tool")
    parser.add_argument("--parameters", default="{}", metavar="JSON")
    parser.add_argument("--expect", action="append", default=[], metavar="TOOLSET=STATUS")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
