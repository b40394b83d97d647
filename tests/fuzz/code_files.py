from tests.support.fuzz import Boundary, Case
class CodeFiles(Boundary):
    name = "code_files"
    def __init__(self, folder): pass
    def case(self, random): return Case("x", lambda: None)
