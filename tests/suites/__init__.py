"""The test suites behind `make test`; ../run.py runs them."""
