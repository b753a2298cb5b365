# SPDX-License-Identifier: MIT OR Apache-2.0
"""The cases of test_examples.py."""
