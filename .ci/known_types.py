"""Prints how many public symbols have a type that pyright knows; fails where they are too few.

python .ci/known_types.py REPORT LEAST: JSON of `pyright --verifytypes`, the least share in percent.
"""

import json
import sys
from pathlib import Path

report = json.loads(Path(sys.argv[1]).read_text())
if "typeCompleteness" not in report:
    sys.exit(f"pyright --verifytypes gave no figure: {json.dumps(report)[:2000]}")
known = 100 * report["typeCompleteness"]["completenessScore"]
print(f"pyright --verifytypes jaxdl: {known:.1f} % of public symbols have a known type")
if known < float(sys.argv[2]):
    print(*(found["message"] for found in report["generalDiagnostics"]), sep="\n")
    sys.exit(f"that is less than {sys.argv[2]} %")
