"""Numbers for machines, in the forms that others read. Needs the extra [metrics]."""
