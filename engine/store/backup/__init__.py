"""Backups of a store: rows in sealed chunks (`archive`), taken beside a running daemon (`making`), put back and
verified (`restoring`), and what is not sent again after that (`mark`). Why it is so: docs/decisions/0039-backup.md.
"""
