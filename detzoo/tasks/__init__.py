"""One function per verb: plain arguments in, a result object out; no flags and no printing.

Arguments that most of them take:

    pipeline             path of a pipeline.config or of a folder with one, name of a config that comes with detzoo, or
                         a loaded config, which stays unchanged
    overrides            changes of single config fields, ``path=value`` each
    checkpoint_dir       folder with checkpoints, of which the newest is used, or the prefix of one

Errors that most of them raise, all of them ``DetzooError`` and before the work starts if possible:

    UsageError           arguments contradict each other, or name something that does not exist
    ConfigError          the config has errors, which are all listed, or does not fit the task
    CheckpointError      there is no such checkpoint, or it belongs to another model
    DataError            images or records cannot be read
"""
