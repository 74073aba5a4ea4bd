"""The sources of the web pages, put together from the files that readers of the repository see.

Nothing is written twice: pages keep the place that their file has in the repository, so that the
links between files are the links between pages.
"""
