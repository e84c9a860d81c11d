"""`python -m unbroken`: the same as the command `unbroken`.

It owns nothing and decides nothing.
"""

from unbroken.cli import main

if __name__ == "__main__":
    main()
