"""The tests of Unbroken; see cases.py for what they prove."""
