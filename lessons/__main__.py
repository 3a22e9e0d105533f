"""`python -m lessons [--answers] [CHAPTER]`: run the lessons in order and print the story."""

import sys

from lessons.story import lessons, load, tell


def main(arguments: list[str]) -> int:
    chapter = next((word for word in arguments if not word.startswith("-")), "")
    held = [tell(load(path), "--answers" in arguments) for path in lessons(chapter)]
    print(f"\n{sum(held)} of {len(held)} lessons hold.")
    return 0 if held and all(held) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
