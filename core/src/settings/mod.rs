//! Settings files: typed values, line-precise errors.
