//! A few hundred seeds.
