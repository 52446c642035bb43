import sys

from dreamspace.cli import main

sys.exit(main())
