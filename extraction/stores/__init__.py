"""Items, shards and stores, and everything that fills them: one process, ranks, Dask."""
