//! include/evloop.h is what the sources say, byte for byte.

#![allow(clippy::disallowed_methods)]

// Not env!: without the variable this file would not compile, and the reason,
// that cbindgen could not read the sources, would stay hidden.
const GENERATED: Option<&str> = option_env!("EVLOOP_GENERATED_HEADER");

#[test]
fn the_header_is_up_to_date() {
    let generated = GENERATED.expect("no header was generated: `cargo build` says why");
    let generated = std::fs::read_to_string(generated).expect("the generated header");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/include/evloop.h");
    let kept = std::fs::read_to_string(path).expect("include/evloop.h");
    for (number, (new, old)) in (1..).zip(generated.lines().zip(kept.lines())) {
        assert_eq!(old, new, "include/evloop.h:{number}: run `make header`");
    }
    assert!(
        generated == kept,
        "include/evloop.h has another length than the generated one: run `make header`"
    );
}
