"""The front door for Python programs: ``detzoo.load``, and the detector and the results that it leads to.

source -> ``load`` -> ``LoadedDetector`` -> ``detect`` -> ``Result``
                                        \\-> train, evaluate, export, benchmark: the functions of ``detzoo.tasks``
"""
