from tests.support.fuzz import Boundary, Case
class Media(Boundary):
    name = "media"
    def __init__(self, folder): pass
    def case(self, random): return Case("x", lambda: None)
