"""Everything that is to be measured on a GPU, in one resumable command of at most nine minutes.

* :mod:`steps`: the commands, in order of their worth
* :mod:`progress`: run them within a time limit, and remember which are finished
* :mod:`bars`: what was reached, against what was promised
* :mod:`__main__`: ``python -m benchmarks.gpu_suite``, which ``make gpu`` starts
"""
