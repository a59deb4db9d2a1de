"""Zip archives as torch writes them, every record compared with its checksum: torch itself does not notice flipped bits."""

import io
import lzma
import struct
import zipfile
import zlib

ERRORS_OF_ZIPFILE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,  # a compression method that there is not
    RuntimeError,  # an encrypted record
    OverflowError,
)


MARKED_AS_FOLDER = 0x10  # in the attributes of MS-DOS


def checked_records(data: bytes) -> dict[str, str]:
    """Names of all records without and with the folder they lie in, each compared with its checksum.

    Args:
        data: content of the archive.

    Raises:
        ERRORS_OF_ZIPFILE: if it is no archive, or damaged.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        for record in archive.infolist():
            # `testzip` opens records by their names, and so the last one of a name alone.
            if names.count(record.filename) > 1:
                raise zipfile.BadZipFile(f"its record {_printable(record.filename)} stands twice")
        wrong = archive.testzip()
        if wrong is not None:
            raise zipfile.BadZipFile(f"the checksum of its record {_printable(wrong)} is wrong")
        for record in archive.infolist():
            # torch takes such a record for one without content, and gives whatever memory held before.
            if record.external_attr & MARKED_AS_FOLDER:
                raise zipfile.BadZipFile(
                    f"its record {_printable(record.filename)} is marked as a folder"
                )
        return {name.partition("/")[2]: name for name in names}


def _printable(name: str) -> str:
    """A name out of a file that may be damaged, fit for a sentence."""
    return "".join(c if c.isprintable() else "?" for c in name)
