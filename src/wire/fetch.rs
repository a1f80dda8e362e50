//! serve ⇄ fetch: one job per process, then it exits.
