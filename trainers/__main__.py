"""`python -m zoo.trainers`: the public function `train` on the command line."""

import argparse
import sys

from zoo.errors import ZooError
from zoo.trainers import list_recipes, train


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m zoo.trainers", description="Train a tokenizer.")
    parser.add_argument("recipe", help=f"a .yaml file, or one of: {', '.join(list_recipes())}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as optimizer.learning_rate=1e-4")
    parser.add_argument("--data", required=True, help="folder of files, or with `train` and `val` inside")
    parser.add_argument("--validation-data", help="folder of files")
    parser.add_argument("--run-dir", help="folder of the run; default: runs/ and the tokenizer's name")
    parser.add_argument("--restart", action="store_true", help="start anew instead of going on")
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command goes on later")
    parser.add_argument("--accelerator", default="auto", help="of Fabric")
    parser.add_argument("--devices", default="1", help="of Fabric")
    parser.add_argument("--strategy", default="auto", help="of Fabric")
    options = vars(parser.parse_intermixed_args())
    resume = not options.pop("restart")
    try:
        result = train(options.pop("recipe"), options.pop("overrides"), resume=resume, **options)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(result.weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
