"""`python -m sitepages OUTPUT`: put the sources of the web pages together in an empty folder."""

import sys
from pathlib import Path

from sitepages.assembly import Site


def main() -> int:
    """Write the sources; exit code 2 on a wrong call, 1 where the repository is not in order."""
    if len(sys.argv) != 2:
        print("usage: python -m sitepages OUTPUT", file=sys.stderr)
        return 2
    site = Site(Path(__file__).parents[2], Path(sys.argv[1]))
    try:
        site.assemble()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for page, target in site.dead:
        print(f"{page}: there is no {target}; its words stay without a link", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
