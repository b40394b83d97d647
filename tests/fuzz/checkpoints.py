from tests.support.fuzz import Boundary, Case


class Checkpoints(Boundary):
    name = "checkpoints"

    def __init__(self, folder):
        pass

    def case(self, random):
        return Case("x", lambda: None)
