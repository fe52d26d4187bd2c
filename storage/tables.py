"""Every table there is: importing all of storage makes the metadata whole, with no list to edit.

Migrations and the privacy walk stand on it.
"""

import importlib
import pkgutil

from sqlmodel import SQLModel

import storage

METADATA = SQLModel.metadata

for _module in pkgutil.iter_modules(storage.__path__, "storage."):
    importlib.import_module(_module.name)
