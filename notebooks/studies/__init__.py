"""What the notebooks measure and draw beyond the package: code that an experiment needs and a product does not.

Notebooks find it beside them (`from studies import leaks`); the package never imports it.
"""
