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


def checked_records(data: bytes) -> dict[str, str]:
    """Names of all records without and with the folder they lie in, each compared with its checksum.

    Args:
        data: content of the archive.

    Raises:
        ERRORS_OF_ZIPFILE: if it is no archive, or damaged.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        wrong = archive.testzip()
        if wrong is not None:
            name = "".join(c if c.isprintable() else "?" for c in wrong)  # it may be damaged, too
            raise zipfile.BadZipFile(f"the checksum of its record {name} is wrong")
        return {name.partition("/")[2]: name for name in archive.namelist()}
