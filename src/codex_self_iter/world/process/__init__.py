"""Processes: starting, watching, ending and finding them, so that nothing outlives its
iteration.
"""
