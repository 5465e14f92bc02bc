//! A whole mayfly in one process, with simulated machines and a manual clock
