//! Branches that cannot be taken, unless the library has a bug.

/// `let Some(one) = of.get(id) else { bug_or!(return) };`: panics in debug
/// builds and tests, and does what it is given in release builds.
macro_rules! bug_or {
    ($fallback:expr) => {{
        $crate::util::bug::found();
        $fallback
    }};
}
pub(crate) use bug_or;

/// A branch that cannot be was taken; the caller's file and line are in the
/// message.
#[track_caller]
#[allow(clippy::panic)]
pub(crate) fn found() {
    if cfg!(debug_assertions) {
        panic!("a bug: this branch cannot be");
    }
}

#[cfg(test)]
mod tests {
    fn second(of: &[u8]) -> u8 {
        let [_, second, ..] = of else { bug_or!(return 0) };
        *second
    }

    #[test]
    #[should_panic(expected = "a bug")]
    fn a_branch_that_cannot_be_panics_in_tests() {
        assert_eq!(second(&[1, 2]), 2);
        second(&[]);
    }
}
