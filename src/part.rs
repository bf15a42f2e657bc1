//! The parts of a step as spans: `data`, `forward`, `backward`, `optimizer`, `generation`, `reward`, `reference`, and
//! `step` around them. Owns the macro only; imports nothing.

/// A span of the part `$name`, for `in_scope` or `entered`. Where nobody listens to this target at trace level, as in
/// everything but `collimate bench`, it costs the reading of one number.
macro_rules! part {
    ($name:literal) => {
        tracing::trace_span!(target: "collimate::parts", $name)
    };
}
