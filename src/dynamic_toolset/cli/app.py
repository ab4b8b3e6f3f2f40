"""The commands and their options. What a command does is in the module of its name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dynamic_toolset import __version__

if TYPE_CHECKING:
    from dynamic_toolset.cli.remote import Where

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Put several options into one, which reads in ``--help`` in the order in which they are given here."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_settings = _options(
    click.option(
        "--config", "-c", type=_FILE, metavar="FILE", envvar="DYNAMIC_TOOLSET_CONFIG", help="Settings (YAML)."
    ),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="SETTING=VALUE",
        help="One setting, e.g. healthCheck.timeout=3s. Repeatable.",
    ),
)
_cluster = _options(
    click.option(
        "--kubeconfig",
        metavar="FILE",
        help="A kubeconfig. Default: in-cluster, else $KUBECONFIG or ~/.kube/config.",
    ),
    click.option("--context", metavar="NAME", help="The context of the kubeconfig."),
)


def _matching(pattern: str, hint: str) -> Callable[..., str | None]:
    """Return what refuses an option that cannot be meant: it would become a part of a path."""

    def check(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(pattern, value):
            raise click.BadParameter(f"{value!r}: write {hint}")
        return value

    return check


def _check_url(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    from dynamic_toolset.kube.connection import is_url

    if not is_url(value) or not re.fullmatch(r"[^?#\s]+", value):
        raise click.BadParameter("write http://HOST:PORT or https://HOST:PORT")
    return value


_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"

_service = _options(
    click.option(
        "--url",
        metavar="URL",
        callback=_check_url,
        help="Where the service answers. Default: asked through the API server.",
    ),
    click.option("--ca-file", metavar="FILE", help="Certificates to trust for --url, PEM. Default: the system's."),
    _cluster,
    click.option(
        "--service",
        metavar="[NAMESPACE/]NAME",
        default="kubernaut-system/dynamic-toolset",
        show_default=True,
        callback=_matching(rf"({_NAME}/)?{_NAME}", "NAMESPACE/NAME"),
        help="Its Service.",
    ),
    click.option(
        "--port",
        metavar="PORT",
        default="8080",
        show_default=True,
        callback=_matching(_NAME, "the number or the name of a port"),
        help="The port of the Service, its number or its name.",
    ),
    click.option("--tls", is_flag=True, help="It speaks TLS at that port."),
    click.option(
        "--token-file",
        metavar="FILE",
        help="Holds a token for the service. Default: $DYNAMIC_TOOLSET_TOKEN, else none.",
    ),
    click.option(
        "--service-account",
        metavar="[NAMESPACE/]NAME",
        callback=_matching(rf"({_NAME}/)?{_NAME}", "NAME, or NAMESPACE/NAME"),
        help="Ask the API server for a token of this ServiceAccount, for the service only.",
    ),
    click.option(
        "--audience",
        metavar="NAME",
        default="dynamic-toolset",
        show_default=True,
        help="What that token is to be good for: the service's setting server.audience.",
    ),
)
_manifests = click.option(
    "--filename",
    "-f",
    multiple=True,
    metavar="FILE",
    help="Manifests, YAML or JSON, any number of documents; - is standard input. Repeatable.",
)


def _output(*formats: str, about: str | None = None) -> Callable[[F], F]:
    choice = click.Choice(formats)
    return click.option("--output", "-o", type=choice, default=formats[0], show_default=True, help=about)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="dynamic-toolset", message="%(prog)s %(version)s")
def app() -> None:
    """Keep the toolset of an AI agent (HolmesGPT) in step with the observability services of a cluster."""


@app.command(
    epilog="""Examples:

\b
  dynamic-toolset run
      in a cluster, with its ServiceAccount
  dynamic-toolset run --kubeconfig ~/.kube/config --set configMap.namespace=holmes
      from elsewhere, publishing into another namespace
"""
)
@_settings
@_cluster
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    default="auto",
    show_default=True,
    help="auto: console on a terminal, else JSON.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def run(
    config: Path | None,
    assignments: tuple[str, ...],
    kubeconfig: str | None,
    context: str | None,
    log_format: str,
    log_level: str,
) -> None:
    """Run the service until it is told to stop.

    It watches the Services, checks the backends among them, and keeps the ConfigMap right. SIGTERM ends it.
    """
    from dynamic_toolset.cli import run as command

    command.run(config, assignments, kubeconfig, context, log_format, log_level)


@app.command(
    epilog="""Examples:

\b
  dynamic-toolset discover
  dynamic-toolset discover -o json | jq '.services[] | select(.health != "healthy")'
"""
)
@_output("table", "json", "yaml")
@_settings
@_cluster
def discover(
    output: str, config: Path | None, assignments: tuple[str, ...], kubeconfig: str | None, context: str | None
) -> None:
    """Look once at the cluster, check, and show. Writes nothing."""
    from dynamic_toolset.cli import discover as command

    command.run(output, config, assignments, kubeconfig, context)


@app.command(
    epilog="""Examples:

\b
  kubectl get services -A -o yaml | dynamic-toolset generate -f -
  helm template my-release my-chart | dynamic-toolset generate -f - -o configmap
  dynamic-toolset generate -f services.yaml --overrides overrides.yaml -o holmesgpt
"""
)
@_manifests
@_output(
    "documents",
    "holmesgpt",
    "generic",
    "configmap",
    about="All documents as a YAML stream, one of them, or the ConfigMap.",
)
@click.option("--overrides", type=_FILE, metavar="FILE", help="What overrides.yaml of the ConfigMap would hold.")
@_settings
def generate(
    filename: tuple[str, ...], output: str, overrides: Path | None, config: Path | None, assignments: tuple[str, ...]
) -> None:
    """Print what would be published for manifests.

    Without a cluster, and without checks: every backend is taken for healthy.
    """
    from dynamic_toolset.cli import generate as command

    if not filename:
        raise click.UsageError("give manifests with -f FILE, or -f - for standard input")
    command.run(filename, output, overrides, config, assignments)


@app.command(
    epilog="""Examples:

\b
  dynamic-toolset explain monitoring/grafana
      this Service, in the cluster, with a check of its health
  dynamic-toolset explain -f service.yaml
      every Service of a manifest, without a cluster
  kubectl get services -A -o yaml | dynamic-toolset explain -f - -o json
"""
)
@click.argument("service", metavar="[NAMESPACE/NAME]", required=False)
@_manifests
@_output("text", "json")
@_settings
@_cluster
def explain(
    service: str | None,
    filename: tuple[str, ...],
    output: str,
    config: Path | None,
    assignments: tuple[str, ...],
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Say why a Service is, or is not, in the toolset."""
    from dynamic_toolset.cli import explain as command

    if (service is None) == (not filename):
        raise click.UsageError("name one Service as NAMESPACE/NAME, or give manifests with -f FILE")
    if service is None:
        command.run_files(filename, output, config, assignments)
    else:
        command.run_live(_key(service), output, config, assignments, kubeconfig, context)


# --- The running service ---------------------------------------------------------------------------------------------


@app.group(
    epilog="""Examples:

\b
  dynamic-toolset get services
  dynamic-toolset get toolset -o yaml
  dynamic-toolset get config
"""
)
def get() -> None:
    """Show what the running service knows.

    It is asked through the API server, with your kubeconfig, or at --url.
    """


@get.command(
    "services",
    epilog="""Examples:

\b
  dynamic-toolset get services --health unhealthy
  dynamic-toolset get services -n monitoring -n logging --service-account sre
  dynamic-toolset get services --all -o json --url http://127.0.0.1:8080
""",
)
@_output("table", "json", "yaml", "name")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only of this service type. Repeatable.")
@click.option(
    "--namespace", "-n", "namespaces", multiple=True, metavar="NAME", help="Only of this namespace. Repeatable."
)
@click.option(
    "--health",
    multiple=True,
    type=click.Choice(["healthy", "unhealthy", "unknown"]),
    help="Only with this health. Repeatable.",
)
@click.option(
    "--decision",
    "decisions",
    multiple=True,
    type=click.Choice(["candidate", "duplicate", "rejected", "ignored"]),
    help="Only with this decision. Repeatable. Default: all but ignored.",
)
@click.option("--all", "everything", is_flag=True, help="Also those that nothing speaks for.")
@_service
def get_services(
    output: str,
    types: tuple[str, ...],
    namespaces: tuple[str, ...],
    health: tuple[str, ...],
    decisions: tuple[str, ...],
    everything: bool,
    **where: Any,
) -> None:
    """Show the Services, what was decided about each, and why."""
    from dynamic_toolset.cli import get as command

    if everything and decisions:
        raise click.UsageError("give --all or --decision, not both")
    chosen = decisions or (() if everything else command.CONSIDERED)
    query = [
        *(("type", one) for one in types),
        *(("namespace", one) for one in namespaces),
        *(("health", one) for one in health),
        *(("decision", one) for one in chosen),
    ]
    command.services(output, query, _where(where))


@get.command(
    "toolset",
    epilog="""Examples:

\b
  dynamic-toolset get toolset
  dynamic-toolset get toolset -o yaml
      the file that HolmesGPT reads
""",
)
@_output("table", "json", "yaml", about="yaml: the file of HolmesGPT as it is published. json: all documents.")
@_service
def get_toolset(output: str, **where: Any) -> None:
    """Show what the agent may use."""
    from dynamic_toolset.cli import get as command

    command.toolset(output, _where(where))


@get.command(
    "config",
    epilog="""Examples:

\b
  dynamic-toolset get config
  dynamic-toolset get config -o json | jq '.settings[] | select(.source != "default")'
""",
)
@_output("table", "json", "yaml")
@_service
def get_config(output: str, **where: Any) -> None:
    """Show the settings in force, and where each came from. What may be a secret is masked."""
    from dynamic_toolset.cli import get as command

    command.config(output, _where(where))


@app.command(
    epilog="""Exit status: 0 nothing would change, 1 something would, 2 it did not work.

Examples:

\b
  dynamic-toolset diff
  dynamic-toolset diff --service holmes/dynamic-toolset --service-account sre
"""
)
@_output("text", "json")
@_service
def diff(output: str, **where: Any) -> None:
    """Show what the running service would change in its ConfigMap now, and why it does not."""
    from dynamic_toolset.cli import diff as command

    command.run(output, _where(where))


@app.command(
    epilog="""Examples:

\b
  dynamic-toolset refresh
  dynamic-toolset refresh --wait
"""
)
@click.option("--wait", is_flag=True, help="Wait until it is done, and say what came of it.")
@_service
def refresh(wait: bool, **where: Any) -> None:
    """Let the running service look at all Services again, and check every candidate, now.

    Nothing needs this in the ordinary course of things: changes are seen when they happen.
    """
    from dynamic_toolset.cli import refresh as command

    command.run(_where(where), wait=wait)


def _where(options: dict[str, Any]) -> "Where":
    from dynamic_toolset.cli.remote import Where

    if options["token_file"] and options["service_account"]:
        raise click.UsageError("give --token-file or --service-account, not both")
    return Where(**options)


# --- Texts that are meant for it -------------------------------------------------------------------------------------


@app.group(
    epilog="""Examples:

\b
  dynamic-toolset validate overrides -f overrides.yaml
"""
)
def validate() -> None:
    """Say what is wrong with a file, before the service meets it. Needs no cluster."""


@validate.command(
    "overrides",
    epilog="""Examples:

\b
  dynamic-toolset validate overrides -f overrides.yaml
  kubectl get configmap -n kubernaut-system kubernaut-toolset-config \\
      -o jsonpath='{.data.overrides\\.yaml}' | dynamic-toolset validate overrides -f -
""",
)
@click.option("--filename", "-f", multiple=True, required=True, metavar="FILE", help="- is standard input. Repeatable.")
@_output("text", "json")
def validate_overrides(filename: tuple[str, ...], output: str) -> None:
    """Print every mistake of overrides as FILE:LINE: field: what is wrong. Exit status 1 if there is one."""
    from dynamic_toolset.cli import validate as command

    command.run(filename, output)


# --- Without a service or a cluster ----------------------------------------------------------------------------------


@app.command(
    epilog="""Examples:

\b
  dynamic-toolset demo
  dynamic-toolset demo --keep
      leaves it running, with the address to look at
"""
)
@click.option("--keep", is_flag=True, help="Leave it running until Ctrl-C.")
def demo(keep: bool) -> None:
    """Show the service at work, without a cluster.

    A Kubernetes API and sample backends run in this process, and the story of a day happens to them.
    """
    from dynamic_toolset.cli import demo as command

    command.run(keep=keep)


# --- Settings --------------------------------------------------------------------------------------------------------


@app.group(
    "config",
    epilog="""Examples:

\b
  dynamic-toolset config check settings.yaml
  dynamic-toolset config show --config settings.yaml
  dynamic-toolset config schema > settings.schema.json
""",
)
def config_group() -> None:
    """Check and show settings, and what there is to set."""


@config_group.command(
    "check",
    epilog="""Examples:

\b
  dynamic-toolset config check settings.yaml
  dynamic-toolset config check toolsetconfig.yaml
      a ToolsetConfig, before it is applied
  kubectl get toolsetconfig -n holmes kubernaut-toolset-config -o yaml | dynamic-toolset config check -
""",
)
@click.argument("file", metavar="FILE")
@click.option(
    "--catalog",
    type=_FILE,
    metavar="FOLDER",
    help="Service types of your own. Default: the folder that the file names.",
)
@_output("text", "json")
def config_check(file: str, catalog: Path | None, output: str) -> None:
    """Print every mistake of a settings file, or of a ToolsetConfig, as FILE:LINE: SETTING: what is wrong.

    FILE may be - for standard input. Needs no cluster. Exit status 1 if there is a mistake.
    """
    from dynamic_toolset.cli import config as command

    command.check(file, catalog, output)


@config_group.command(
    "show",
    epilog="""Examples:

\b
  dynamic-toolset config show --config settings.yaml --set paused=true
  dynamic-toolset config show --resource toolsetconfig.yaml -o json
  dynamic-toolset config show --kubeconfig ~/.kube/config
      with the ToolsetConfig in that cluster, if there is one
""",
)
@_output("table", "json", "yaml")
@_settings
@click.option(
    "--resource",
    metavar="FILE",
    help="A ToolsetConfig to take into account; - is standard input. With --kubeconfig or --context: the one in the "
    "cluster.",
)
@_cluster
def config_show(
    output: str,
    config: Path | None,
    assignments: tuple[str, ...],
    resource: str | None,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Show every setting with which `run` would start, and where it came from. What may be a secret is masked."""
    from dynamic_toolset.cli import config as command

    command.show(output, config, assignments, resource, kubeconfig, context)


@config_group.command(
    "schema",
    epilog="""Examples:

\b
  dynamic-toolset config schema > settings.schema.json
      for editors
  dynamic-toolset config schema --crd | kubectl apply --server-side -f -
""",
)
@click.option("--crd", is_flag=True, help="The CustomResourceDefinition of ToolsetConfig instead (YAML).")
def config_schema(crd: bool) -> None:
    """Print the JSON Schema of the settings file."""
    from dynamic_toolset.cli import config as command

    command.schema(crd=crd)


def _key(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise click.UsageError(f"{text!r}: write NAMESPACE/NAME, e.g. monitoring/grafana")
    return namespace, name
