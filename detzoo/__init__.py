"""detzoo: a zoo of object detectors on TensorFlow and Keras 3.

Importing the package is cheap: TensorFlow is loaded by the modules that compute with it, never here.
"""

__version__ = "0.1.0"
