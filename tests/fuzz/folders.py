from tests.support.fuzz import Boundary, Case


class Folders(Boundary):
    name = "folders"

    def __init__(self, folder):
        pass

    def case(self, random):
        return Case("x", lambda: None)
