//! How a service's data folder is known to others: the agent, which must not sync one.

/// File in a data folder that tells its format.
pub const FORMAT_FILE: &str = "format";
/// How that file begins; the number of the format follows.
pub const FORMAT_PREFIX: &str = "isotherm service data, format ";
