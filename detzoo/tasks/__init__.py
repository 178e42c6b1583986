"""One function per verb: plain arguments in, a result object out; no flags and no printing."""
