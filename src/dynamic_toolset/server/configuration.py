"""The settings in force, as the API shows them, and as somebody asks for them to be read again."""

from dynamic_toolset import settings
from dynamic_toolset.configuration.configuration import Configuration
from dynamic_toolset.discovery.catalog import CatalogError
from dynamic_toolset.server import answers
from dynamic_toolset.server.problems import FieldError, Refusal
from dynamic_toolset.settings import SettingsError
from dynamic_toolset.strict_yaml import shortened


def shown(configuration: Configuration) -> answers.ConfigAnswer:
    """Return every setting in force, masked, and where it came from."""
    rows = settings.effective(configuration.setup.settings, configuration.setup.sources)
    items = tuple(answers.SettingItem(row.name, row.value, row.source.kind, row.source.name) for row in rows)
    return answers.ConfigAnswer(configuration.file, items)


async def reloaded(configuration: Configuration) -> answers.ReloadAnswer:
    """Read everything again. Raises Refusal (400) with every problem, and then everything stays as it was."""
    try:
        done = await configuration.reload()
    except (SettingsError, CatalogError) as error:
        errors = [FieldError("", shortened(line, 1000)) for line in str(error).splitlines()]
        raise Refusal(400, "the settings cannot be used, so those before stay in force", errors=errors) from None
    return answers.ReloadAnswer(done.changed, done.need_restart)
