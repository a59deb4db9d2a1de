"""The program in docs/derivation.md prints what the page says."""

import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs/derivation.md").read_text()


def test_the_errors_of_tables_are_as_printed(capsys):
    """Up to the rounding to one digit and that of instruction sets."""
    (program, printed) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", PAGE, re.S)[0]
    exec(compile(program, "docs/derivation.md", "exec"), {})
    found, expected = capsys.readouterr().out.splitlines(), printed.splitlines()
    assert len(found) == len(expected) == 5
    number = r"\d+e-\d+"
    for line, wanted in zip(found, expected, strict=True):
        assert re.sub(number, "", line) == re.sub(number, "", wanted)
        values = zip(re.findall(number, line), re.findall(number, wanted), strict=True)
        assert all(0.6 < float(a) / float(b) < 1.7 for a, b in values), line
