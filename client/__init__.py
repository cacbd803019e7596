"""A client of the public interface: post a folder or a table of visits, wait, list, show, fetch reports.

It knows of the service what ``/openapi.json`` says and nothing else: it imports none of the other packages, so that
this folder can be copied to a clinic's machine that has Python and httpx.

::

    __main__   the command line
    posting    many visits: what was sent before, several at a time, a lost connection, Ctrl-C
    cases      a folder, a table or files -> visits to post
    shown      visits as a table, as CSV, as text
    connection one address and key: requests that are sent again where that is safe
"""
