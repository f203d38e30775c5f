"""The documentation's table of the API's settings."""

from keyturn import settings_table
from keyturn_api.settings import ApiSettings


def render() -> str:
    """A Markdown table, one line a setting."""
    return settings_table.render(ApiSettings)
