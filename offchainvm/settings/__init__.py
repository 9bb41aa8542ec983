"""The settings: the only reader of the environment and of ``.env``.

Each field of ``Settings`` is one variable, its name in capitals. A process loads them for the roles that it
serves: what those roles do not need is neither required nor read, so a secret stays out of processes that have
no use for it. Every secret can also come from a file named by ``NAME_FILE``.
"""

from offchainvm.settings.fields import Role, SettingInfo
from offchainvm.settings.load import environment_of, load, load_common, load_only
from offchainvm.settings.table import Settings, setting_table

__all__ = ["Role", "SettingInfo", "Settings", "environment_of", "load", "load_common", "load_only", "setting_table"]
