"""`python -m ddmd_bench`."""

from ddmd_bench.commands.cli import app

if __name__ == "__main__":
    app(prog_name="python -m ddmd_bench")
