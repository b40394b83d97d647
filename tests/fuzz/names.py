from tests.support.fuzz import Boundary, Case


class Names(Boundary):
    name = "names"

    def __init__(self, folder):
        pass

    def case(self, random):
        return Case("x", lambda: None)
