//! A Messages API that plays a script
