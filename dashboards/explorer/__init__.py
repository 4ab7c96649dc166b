"""The explorer: one page over a run, on its own (`explore_run`) or inside its server (`mount_explorer`).

app       the page as an application, and where it is mounted
gate      what stands before Dash: which requests pass, how many at once, the page's CSP
shelf     the page's files, kept compressed
page      what stands where; parts.py has what the views share
front     the front, where a click is a trade-off
many      the same for more than three objectives: brushes and a matrix
panel     the trade-off: sliders, the row, what is predicted
tradeoff  what its controls do
wishing   all the ways to ask for at least so much
snippets  how to ask for it elsewhere; copying.py is the place to copy it from
live      how texts are asked for, where a server writes them
reading   texts side by side, as they are written; stored.py has those of the run, scores.py what objectives say of them
examples  weights from picks, which picks.py holds
training  what the sweep did, and does
comparing two runs
exporting the page, the data

Nothing of a user is kept in the server: what a page knows stands in its own stores, so that any number may be open.
"""
