"""`python -m speciate`."""

from speciate.cli import main

raise SystemExit(main())
