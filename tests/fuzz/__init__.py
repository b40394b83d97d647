"""A seeded fuzz of everything that comes from outside, one module for each boundary.

`python -m tests.fuzz 10000` runs so many cases of all boundaries and prints a table of the outcomes.
"""

from tests.fuzz.checkpoints import Checkpoints
from tests.fuzz.code_files import CodeFiles
from tests.fuzz.codes import Codes
from tests.fuzz.corpora import Corpora
from tests.fuzz.folders import Folders
from tests.fuzz.ids import Ids
from tests.fuzz.media import Media
from tests.fuzz.names import Names
from tests.fuzz.recipes import Recipes
from tests.fuzz.signals import Signals
from tests.support.fuzz import Boundary

BOUNDARIES: dict[str, type[Boundary]] = {
    boundary.name: boundary
    for boundary in (Signals, Codes, Ids, CodeFiles, Media, Checkpoints, Folders, Recipes, Names, Corpora)
}
