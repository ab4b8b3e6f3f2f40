"""The settings: one model, with the same names in file, environment and flags.

``model`` is what can be set, ``reading`` where it comes from, ``problems`` what is wrong with what somebody wrote,
``resource`` what a ToolsetConfig can say, and ``inspection`` what is in force. Names in the file are camelCase as in
Kubernetes (``healthCheck.timeout``). Durations are written as ``500ms``, ``5s``, ``1m30s`` or ``1h``.
"""

from dynamic_toolset.settings.inspection import MASK, RESTART, Setting, changed, effective, needs_restart
from dynamic_toolset.settings.model import (
    DEFAULT_BASE,
    TRUSTED_TYPES,
    AllowedTypes,
    ConfigMapSettings,
    Credential,
    ForeignEndpoints,
    HealthCheckSettings,
    LeaderElection,
    MassFailure,
    Namespaces,
    Policy,
    RemoteCluster,
    ServerSettings,
    ServiceTypeSettings,
    Settings,
    TlsFiles,
    ToolsetConfigSettings,
    ToolsetSettings,
    seconds,
)
from dynamic_toolset.settings.problems import SettingProblem, SettingsError, merged_settings, problems
from dynamic_toolset.settings.reading import (
    ENVIRONMENT_PREFIX,
    Loaded,
    Resource,
    Source,
    load,
    load_with_sources,
    mistakes,
)
from dynamic_toolset.settings.resource import PROCESS_SETTINGS, RESOURCE_FIELDS, problems_of_spec
from dynamic_toolset.strict_yaml import YamlLoader

__all__ = [
    "DEFAULT_BASE",
    "ENVIRONMENT_PREFIX",
    "MASK",
    "PROCESS_SETTINGS",
    "RESOURCE_FIELDS",
    "RESTART",
    "TRUSTED_TYPES",
    "AllowedTypes",
    "ConfigMapSettings",
    "Credential",
    "ForeignEndpoints",
    "HealthCheckSettings",
    "LeaderElection",
    "Loaded",
    "MassFailure",
    "Namespaces",
    "Policy",
    "RemoteCluster",
    "Resource",
    "ServerSettings",
    "ServiceTypeSettings",
    "Setting",
    "SettingProblem",
    "Settings",
    "SettingsError",
    "Source",
    "TlsFiles",
    "ToolsetConfigSettings",
    "ToolsetSettings",
    "YamlLoader",
    "changed",
    "effective",
    "load",
    "load_with_sources",
    "merged_settings",
    "mistakes",
    "needs_restart",
    "problems",
    "problems_of_spec",
    "seconds",
]
