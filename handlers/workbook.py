"""A workbook with one sheet, as coordinators are handed lists."""

import io
from collections.abc import Sequence
from datetime import datetime
from string import ascii_uppercase
from typing import Any

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell

from bot.clock import BEIJING

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class Sheet:
    """A sheet on its way: a title, the heads with their widths, then rows.

    Text that looks like a formula stays text.
    """

    def __init__(
        self, page: str, title: str, heads: Sequence[tuple[str, int]], now: datetime
    ) -> None:
        self._book = Workbook(write_only=True)
        self._book.properties.created = now.astimezone(BEIJING).replace(tzinfo=None)
        self._page = self._book.create_sheet(page)
        self._page.freeze_panes = "A3"
        for letter, (_head, width) in zip(ascii_uppercase, heads, strict=False):
            self._page.column_dimensions[letter].width = width
        self._page.append([self._text(title)])
        self._page.append([head for head, _width in heads])

    def append(self, row: Sequence[str]) -> None:
        """One more row."""
        self._page.append([self._text(value) if value[:1] == "=" else value for value in row])

    def _text(self, value: str) -> Any:
        cell = WriteOnlyCell(self._page, value)
        cell.data_type = "s"
        return cell

    def bytes(self) -> bytes:
        """The whole file."""
        file = io.BytesIO()
        self._book.save(file)
        return file.getvalue()
