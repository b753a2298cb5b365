//! include/evloop.h is what the sources say, byte for byte, and all of it is called
//! by the tests of every call.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

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

/// The functions that the header declares.
fn functions(header: &str) -> Vec<&str> {
    let code = header.lines().filter(|line| !line.trim_start().starts_with(['*', '/']));
    let declared = code.filter(|line| !line.starts_with("typedef"));
    let names = declared.filter_map(|line| line.split_once('(')?.0.split([' ', '*']).next_back());
    names.filter(|name| name.starts_with("evloop_") || name.starts_with("tfd_")).collect()
}

#[test]
fn the_tests_of_every_call_make_every_call() {
    let read = |path: &str| {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).expect(&path)
    };
    let (header, calls) = (read("include/evloop.h"), read("c-tests/every_call.h"));
    let functions = functions(&header);
    assert!(functions.len() > 100, "{} functions were found", functions.len());
    let is_made = |name: &&&str| calls.contains(&format!("({name}, ("));
    let missing: Vec<_> = functions.iter().filter(|name| !is_made(name)).collect();
    assert!(missing.is_empty(), "c-tests/every_call.h does not call {missing:?}");
}
