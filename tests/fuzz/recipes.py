from tests.support.fuzz import Boundary, Case


class Recipes(Boundary):
    name = "recipes"

    def __init__(self, folder):
        pass

    def case(self, random):
        return Case("x", lambda: None)
